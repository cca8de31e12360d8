"""Real A/A sets: the embedded engine against itself over HTTP, with jitter; how often is the gate wrong?

    .venv/bin/python tests/bench/bench_gate_aa.py [SETS] [--minutes M] [--write]

Each set is a whole `tailgate gate` of three pairs, about 40 s on two cores; nothing else should run. Verdicts are
kept in runs/bench/gate-aa.jsonl, so that a run which was stopped (or was given --minutes) goes on where it was;
remove the file to begin anew. With --write the figures of all sets go into
docs/gate-operating-tables.md, between their marks.
"""

import argparse
import json
import math
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import stdev

from bench_gate_curve import PAGE, put

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "runs" / "bench" / "gate-aa.jsonl"
BEGIN, END = "<!-- A/A sets: made by tests/bench/bench_gate_aa.py -->", "<!-- end of the A/A sets -->"
POLICY = """\
name: aa
baseline: {{sim: h100-sxm/llama-3.1-8b, args: {{jitter: 0.2}}}}
candidate: {{sim: h100-sxm/llama-3.1-8b, args: {{jitter: 0.2}}}}
spec:
  workload:
    {{prompt_tokens: 256, output_tokens: 32, arrivals: {{process: poisson, rate: 60/s}}, duration: 4s, warmup: 1s}}
pairs: 3
extension: null
seed: {seed}
"""


def one_set(folder: Path, seed: int) -> dict:
    """The verdict of one gate."""
    (folder / "p.yaml").write_text(POLICY.format(seed=seed))
    command = [ROOT / ".venv/bin/tailgate", "gate", "--policy", "p.yaml", "--out", "out", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode in (0, 1, 3, 4), done.stderr
    return json.loads(done.stdout)


def figures(found: list[dict]) -> str:
    """What came of the sets, as Markdown."""
    counts = Counter(one["verdict"] for one in found)
    again = sum(len(one["spent"]["repeated"]) for one in found)
    lines = [
        f"{len(found)} sets of three pairs, identical engines with a step jitter of 20 %, over HTTP: "
        + ", ".join(f"{counts[word]} {word}" for word in ("PASS", "INCONCLUSIVE", "FAIL", "INVALID"))
        + f". {again} pairs were measured again because their measuring had failed.",
        "",
        "| metric | run-to-run CV | largest change of a pair |",
        "| --- | ---: | ---: |",
    ]
    measured = [one for one in found if one["verdict"] != "INVALID"]
    for place, metric in enumerate(measured[0]["metrics"] if measured else []):
        logs = [math.log(ratio) for one in measured for ratio in one["metrics"][place]["ratios"]]
        if len(logs) < 2:
            continue
        spread, most = stdev(logs) / math.sqrt(2), max(map(abs, logs))
        lines.append(f"| {metric['label']} | {100 * spread:.1f} % | {100 * math.expm1(most):.1f} % |")
    return "\n".join(lines)


def main() -> None:
    """Make the sets that are still missing and print what came of all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="?", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further set after so long")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    while len(found) < options.sets and time.monotonic() - began < 60 * options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            found.append(one_set(Path(folder), seed=100 * len(found)))
        with KEPT.open("a") as file:
            file.write(json.dumps(found[-1]) + "\n")
        print(f"{len(found)}: {found[-1]['verdict']}  {found[-1]['why']}", flush=True)
    print(figures(found[: options.sets]))
    if options.write:
        PAGE.write_text(put(PAGE.read_text(), figures(found[: options.sets]), BEGIN, END))


if __name__ == "__main__":
    main()
