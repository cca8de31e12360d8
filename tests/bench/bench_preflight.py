"""What is expected of this machine before the load, against what it came to. Prints a table; takes four to six minutes.

Loads of 1,000 to 40,000 chunks/s against the exact server, with none to two busy loops beside. The classes are those
that `tailgate run` says before the load; what it came to is half of the interval of TTFT and ITL p99. Exit code 1 where
a class was too small by more than one step, or too large by more than two, in more than a third of the cases: what else
a machine does changes while it measures.
"""

import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from contextlib import ExitStack
from pathlib import Path

from bench_injector import Load, compiled, measured, serving

from tailgate.harness.host.expected_error import CLASSES_MS
from tailgate.reports.rundir.manifest import Manifest

LOADS = [("50/s", 20), ("100/s", 50), ("100/s", 200), ("200/s", 200)]
SECONDS = 7
ROW = "{:>8} {:>5} {:>5} {:>6} {:>6} {:>4} {:>10} {:>7} {:>10} {:>7}"
TITLES = ("chunks/s", "loops", "use", "idle", "steal", "us", "TTFT: said", "came to", "ITL: said", "came to")


def busy_loop(stack: ExitStack) -> None:
    until = time.monotonic() + 360
    process = subprocess.Popen([sys.executable, "-c", f"import time\nwhile time.monotonic() < {until}: pass"])
    stack.callback(process.wait)
    stack.callback(process.kill)


def one(url: str, rate: str, tokens: int, loops: int, out: Path) -> list[int]:
    """By how many classes it came to more than was said, of TTFT and of ITL."""
    found = measured(url, Load("", (), rate, SECONDS, tokens), out)["summary"]
    expected = Manifest.load(out).expected_error
    said = [expected[f"{name}_ms"] for name in ("ttft", "itl")]
    ends = [found["latency_ms"][name]["p99_error"] for name in ("ttft", "itl")]
    halves = [(high - low) / 2 for low, high in ends]
    machine = expected["machine"]
    figures = [text for pair in zip(said, halves, strict=True) for text in (f"± {pair[0]:g}", f"{pair[1]:.2f}")]
    print(
        ROW.format(
            f"{float(rate[:-2]) * tokens:,.0f}", loops, f"{expected['use']:.2f}", f"{expected['idle_cores']:.2f}",
            f"{machine['steal_share']:.0%}", f"{machine['read_us']:.1f}", *figures,
        ),
        flush=True,
    )  # fmt: skip
    came = [min(bisect_left(CLASSES_MS, half), len(CLASSES_MS) - 1) for half in halves]
    return [there - CLASSES_MS.index(ms) for there, ms in zip(came, said, strict=True)]


def main() -> int:
    print(ROW.format(*TITLES))
    beyond: list[int] = []
    with tempfile.TemporaryDirectory() as name, serving(compiled(Path(name))) as url:
        for loops in range(3):
            with ExitStack() as stack:
                for _ in range(loops):
                    busy_loop(stack)
                for number, (rate, tokens) in enumerate(LOADS):
                    beyond += one(url, rate, tokens, loops, Path(name) / f"{loops}-{number}")
    near = sum(-2 <= more <= 1 for more in beyond)
    print(f"{beyond.count(0)} of {len(beyond)} in the class that was said, {near} near it")
    return 0 if near >= 2 / 3 * len(beyond) else 1


if __name__ == "__main__":
    sys.exit(main())
