"""Prints how well the memory model agrees with the start-up logs of real vLLM servers, by family of models.

    python -m tests.bench.bench_memory [../shared/engine/vram.csv] [--rows]

Weights against those that were loaded; tokens of cache worked out from the logged pool; the pool from end to end. Exit
code 1 where a bound of docs/engine-memory.md doesn't hold over all verified rows. `--rows`: each row's errors too.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

from tests.kit.memory_logs import SHARED, Agreement, MemoryLog, agreement, read_logs

from tailgate.harness.engine.model.model_shape import ModelShape

FIGURES = {
    "weights": ("weights, error in %", 100.0),
    "cache": ("tokens from pool, error in %", 100.0),
    "pool": ("pool, error in GiB", 1.0),
}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("file", nargs="?", type=Path, default=SHARED)
    options.add_argument("--rows", action="store_true")
    given = options.parse_args()
    logs = read_logs(given.file)
    verified = [log for log in logs if log.shape is not None and log.shape.unverified is None and log.is_v1]
    print(f"{len(logs)} servers, of which {len(verified)} have a V1 engine and a model whose memory is verified\n")
    for name, (title, scale) in FIGURES.items():
        print(f"{title:<32} {'n':>4} {'median':>8} {'90 %':>8} {'worst':>8}")
        groups: dict[str, list[MemoryLog]] = defaultdict(list)
        for log in logs:
            groups[_group(log)].append(log)
        for group, members in {"all verified": verified, **dict(sorted(groups.items()))}.items():
            if one := agreement(members, name):
                errors = " ".join(f"{error * scale:>8.2f}" for error in (one.median, one.p90, one.worst))
                print(f"  {group:<30} {one.n:>4} {errors}")
        print()
    if given.rows:
        for log in logs:
            errors = "  ".join(f"{name} {error * FIGURES[name][1]:+.2f}" for name, error in log.errors().items())
            print(f"{log.row:>4} {_group(log):<28} {log.name:<24} {errors or log.left_out}")
    bounds = {"weights": (0.01, None), "cache": (0.002, None), "pool": (0.15, 0.6)}
    return int(any(_broken(agreement(verified, name), *bound) for name, bound in bounds.items()))


def _broken(one: Agreement | None, median: float, p90: float | None) -> bool:
    return one is None or one.median > median or (p90 is not None and one.p90 > p90)


def _group(log: MemoryLog) -> str:
    if not log.is_v1:
        return "engine V0 (not modelled)"
    shape: ModelShape | None = log.shape
    return f"{log.family}, unverified" if shape is None or shape.unverified else log.family


if __name__ == "__main__":
    sys.exit(main())
