"""Whether the printed intervals hold the truth, and what a busy machine still lets a run decide. Prints tables.

The truth of an arrival is the exact server's own clock right before and right after it sent it, since a machine that is
starved starves the server too. Four parts, all against tests/bench/exact_server.c, over loopback:

    coverage [RUNS]  runs of 5 s over 1,000 to 60,000 chunks/s while 0, 1 or 2 cores are taken by busy loops: does each
                     printed interval of TTFT and ITL p50 and p99 hold the truth? (100)
    invalid [RUNS]   5,000 chunks/s with two busy loops: how many runs are INVALID for `ttft: p90 < 200ms` and
                     `itl: p99 < 40ms`? (40)
    stall            a server that stands still for 400 ms in every 3 s and then sends all at once: VALID, stall in p99
    streams          10,000 streams at once: no error, memory a stream

`python tests/bench/bench_own_error.py PART [RUNS]`; exit code 1 where what must hold doesn't.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from bench_injector import FIXED_MB, Load, compiled, measured, serving

from tailgate.reports.stats.order_statistics import quantile

SECONDS, TOKENS = 5, 50
CHUNK_RATES = (1_000, 5_000, 10_000, 20_000, 40_000, 60_000)
OBJECTIVES = ("--slo", "ttft: p90 < 200ms", "--slo", "itl: p99 < 40ms")
ROUNDING_MS = 0.01  # arrivals are kept in whole us, and a stamp is taken inside the call that sends


@contextmanager
def cores_taken(count: int) -> Iterator[None]:
    """So many busy loops, of one core each."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def truth(run: Path, log: Path) -> dict[str, tuple[float, float]]:
    """Least and most of the true TTFT and ITL p50 and p99 (ms), of the requests that the summary counts."""
    manifest = json.loads((run / "manifest.json").read_text())
    rows = pq.read_table(run / "requests.parquet", columns=["index", "scheduled_ns", "phase", "status"]).to_pylist()
    due = {
        row["index"]: manifest["t0_unix_ns"] + row["scheduled_ns"]
        for row in rows if row["phase"] == "measure" and row["status"] == "ok"
    }  # fmt: skip
    sent = np.fromfile(log, np.int64).reshape(-1, 4)
    sent = sent[np.isin(sent[:, 0], list(due))]
    sent = sent[np.lexsort((sent[:, 1], sent[:, 0]))]
    first = sent[:, 1] == 0
    ttft = [(sent[first, at] - np.array([due[row] for row in sent[first, 0]])) / 1e6 for at in (2, 3)]
    after = ~first
    before = np.roll(sent, 1, axis=0)
    itl = [(sent[after, 2] - before[after, 3]) / 1e6, (sent[after, 3] - before[after, 2]) / 1e6]
    found = {}
    for name, (least, most) in (("ttft", ttft), ("itl", itl)):
        for q in (50, 99):
            low, high = (quantile(np.sort(values), q).value for values in (least, most))
            if low is not None and high is not None:
                found[f"{name} p{q}"] = (low, high)
    return found


def coverage(binary: Path, folder: Path, runs: int) -> bool:
    held: Counter[tuple[int, int]] = Counter()
    asked: Counter[tuple[int, int]] = Counter()
    widths: dict[tuple[int, int], list[float]] = {}
    wrong = []
    cells = [(rate, taken) for rate in CHUNK_RATES for taken in (0, 1, 2)]
    for number in range(runs):
        rate, taken = cells[number % len(cells)]
        run, log = folder / f"run-{number}", folder / f"log-{number}"
        load = Load("", (), f"{rate // TOKENS}/s", SECONDS, TOKENS)
        with cores_taken(taken):
            with serving(binary, "--log", str(log)) as url:
                found = measured(url, load, run, "--seed", str(number))
            figures = found["summary"]["latency_ms"]
        for name, (least, most) in truth(run, log).items():
            metric, statistic = name.split()
            ends = figures[metric].get(f"{statistic}_error") or [figures[metric][statistic]] * 2
            if ends[0] is None:
                continue
            asked[rate, taken] += 1
            if ends[0] - ROUNDING_MS <= most and ends[1] + ROUNDING_MS >= least:
                held[rate, taken] += 1
            else:
                wrong.append(
                    f"{rate:,} chunks/s, {taken} cores taken, {name}: printed {ends}, true {least:.4g} to {most:.4g}"
                )
            if name == "ttft p99":
                widths.setdefault((rate, taken), []).append(ends[1] - ends[0])
    print("| chunks/s | cores taken | intervals | hold the truth | width of TTFT p99's, ms |\n|---|---|---|---|---|")
    for cell in cells:
        width = f"{np.median(widths[cell]):.3g}" if cell in widths else "-"
        print(f"| {cell[0]:,} | {cell[1]} | {asked[cell]} | {held[cell]} | {width} |")
    print(f"\n{sum(held.values())} of {sum(asked.values())} intervals of {runs} runs hold the truth")
    print("\n".join(wrong))
    return not wrong


def invalid(binary: Path, folder: Path, runs: int) -> bool:
    verdicts: Counter[str] = Counter()
    with cores_taken(2):
        for number in range(runs):
            load = Load("", (), f"{5_000 // TOKENS}/s", SECONDS, TOKENS)
            with serving(binary) as url:
                found = measured(url, load, folder / str(number), "--seed", str(number), *OBJECTIVES)
            failing = [check["name"] for check in found["summary"]["checks"] if check["status"] == "fail"]
            verdicts[", ".join(failing) or f"exit code {found['code']}"] += 1
    print(f"5,000 chunks/s, two cores taken, {runs} runs: {dict(verdicts)}")
    return sum(count for name, count in verdicts.items() if not name.startswith("exit")) <= 0.05 * runs


def stall(binary: Path, folder: Path) -> bool:
    with serving(binary, "--stall-ms", "400", "--stall-every-ms", "3000") as url:
        found = measured(url, Load("", (), "40/s", 20, 200), folder / "run", "--slo", "ttft: p50 < 200ms")
    figures = found["summary"]["latency_ms"]["stall"]
    print(f"a server that stalls: {_verdict(found)}; stall p50 {figures['p50']:.4g} ms, p99 {figures['p99']:.4g} ms")
    return found["summary"]["valid"] and abs(figures["p99"] - 400) < 25


def streams(binary: Path, folder: Path) -> bool:
    load = Load("", (), "2000/s", 5, 60, "constant")
    with serving(binary, "--itl-us", "200000") as url:
        found = measured(url, load, folder / "run", "--slo", "ttft: p50 < 200ms")
    requests = found["summary"]["load"]["requests"]
    most = found["summary"]["load"].get("in_flight", {})
    a_stream = 1024 * (found["peak_mb"] - FIXED_MB) / 10_000
    print(
        f"10,000 streams: {_verdict(found)}; requests {requests}; in flight {most}; peak {found['peak_mb']:.0f} MB, "
        f"{a_stream:.0f} KB a stream over all processes"
    )
    return requests["ok"] == requests["planned"] and a_stream <= 60


def _verdict(found: dict[str, Any]) -> str:
    return "VALID" if found["summary"]["valid"] else f"INVALID ({'; '.join(found['summary']['invalid_reasons'])})"


def main() -> int:
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    began, fine = time.monotonic(), True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        binary = compiled(folder)
        for name, run in (
            ("coverage", lambda at: coverage(binary, at, runs or 100)),
            ("invalid", lambda at: invalid(binary, at, runs or 40)),
            ("stall", lambda at: stall(binary, at)),
            ("streams", lambda at: streams(binary, at)),
        ):
            if part in ("", name):
                (folder / name).mkdir()
                fine &= run(folder / name)
    print(f"took {time.monotonic() - began:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
