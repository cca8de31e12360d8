"""The control plane's cost: CPU of the Locust process, and how long a user's hand-over to the injector takes.

Against the exact server (C; first token after 50 ms, one token an answer), 1,000 requests/s: in the open loop, in the
closed loop (50 users who never think), and in the closed loop of a person's own locustfile. The budget is 10 % of a
core and a hand-over of 0.6 ms at the 99th percentile. `python tests/bench/bench_control.py [PART OF A NAME]`; exit code
1 where it is exceeded, after all figures.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from bench_injector import compiled, end, serving

SECONDS = 15
CORE_SHARE, HAND_OVER_MS = 0.10, 0.6
OWN = """
from tailgate import LLMUser, task

class Own(LLMUser):
    @task
    def ask(self):
        self.client.complete([1, 2, 3, 4, 5, 6, 7, 8], max_tokens=1)
"""


@dataclass(frozen=True)
class Load:
    name: str
    flags: tuple[str, ...]


PLAN = ("--prompt-tokens", "16", "--output-tokens", "1")
LOADS = (
    Load("open loop, 1,000 requests/s", ("--rate", "1000/s", *PLAN)),
    Load("closed loop, 50 users", ("--users", "50", *PLAN)),
    Load("closed loop, 50 users of a locustfile", ("--users", "50", "--locustfile", "OWN")),
    Load("closed loop, 8 users", ("--users", "8", *PLAN)),
)


def locust_cpu(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds of the Locust process; its share of a core over the middle of the run, seen from outside."""
    root = psutil.Process(process.pid)
    while process.poll() is None:
        found = [p for p in root.children(recursive=True) if "tailgate.loadgen" in p.cmdline()]
        if found and not _waited(process, 4.0):
            before = found[0].cpu_times()
            if not _waited(process, SECONDS - 6.0):
                after = found[0].cpu_times()
                return (after.user + after.system - before.user - before.system) / (SECONDS - 6.0)
        _waited(process, 0.05)
    return float("nan")


def _waited(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def measured(url: str, load: Load, folder: Path) -> list[str]:
    """Prints a load's figures; the exceeded budgets are returned."""
    own = folder / "own.py"
    own.write_text(OWN)
    out = folder / "run"
    flags = [str(own) if flag == "OWN" else flag for flag in load.flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "tailgate", "run", "--target", url,
         *flags, "--duration", f"{SECONDS}s", "--seed", "3", "--no-settle", "--out", str(out), "--quiet"]
    )  # fmt: skip
    share = locust_cpu(process)
    process.wait()
    summary = json.loads((out / "summary.json").read_text())
    records = pq.read_table(out / "requests.parquet")
    asked = records["handed_over_ns" if summary["load"]["loop"] == "closed" else "scheduled_ns"].to_numpy()
    lag = (records["dispatched_ns"].to_numpy() - asked) / 1e6
    p50, p99 = np.percentile(lag[np.isfinite(lag)], [50, 99])
    turnaround = summary["client"].get("turnaround_lag_ms", {})
    print(
        f"{load.name}: {summary['load']['sent_rps']:,.0f} requests/s, Locust process {100 * share:.1f} % of a core, "
        f"dispatch lag p50 {p50:.3f} ms p99 {p99:.3f} ms, turnaround lag p50 {turnaround.get('p50')} "
        f"p99 {turnaround.get('p99')} ms, {'valid' if summary['valid'] else summary['invalid_reasons']}",
        flush=True,
    )
    found = [] if share <= CORE_SHARE else [f"{load.name}: the Locust process took {100 * share:.1f} % of a core"]
    if turnaround and p99 > HAND_OVER_MS:
        found.append(f"{load.name}: the hand-over took {p99:.3f} ms (p99)")
    return found


def main() -> int:
    """All loads, or those whose name contains the first argument."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        binary = compiled(Path(folder))
        for number, load in enumerate(LOADS):
            if wanted in load.name:
                inside = Path(folder) / str(number)
                inside.mkdir()
                with serving(binary) as url:
                    failures += measured(url, load, inside)
    return end(failures)


if __name__ == "__main__":
    sys.exit(main())
