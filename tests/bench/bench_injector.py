"""The injector against a server written in C whose schedule is exact: TTFT 50 ms, ITL 20 ms. Prints figures.

Whole-run figures: CPU is user + system of the process tree of `tailgate run`, start-up and report included; memory is
the largest sum of proportional set sizes (PSS) over all its processes, looked at whenever their resident sizes have
grown by 3 % (reading it holds a process up for some 20 ms, which twice a second would be in the figures). The server's
own lateness stands beside them: where it is large the machine was busy, and the figures are not ours.
`python tests/bench/bench_injector.py [PART OF A LOAD'S NAME]`; exit code 1 where a bound is broken, after all figures.
"""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

HERE = Path(__file__).parent


TTFT_MS, ITL_MS = 50.0, 20.0
# All processes of a run that does next to nothing: what streams cost comes on top.
FIXED_MB = 260


@dataclass(frozen=True)
class Bound:
    """A figure's distance from the truth (0: the figure itself) may be so much."""

    figure: str
    most: float
    truth: float = 0.0
    or_invalid: bool = False  # INVALID with its reason will do as well


@dataclass(frozen=True)
class Load:
    name: str
    bounds: tuple[Bound, ...]
    rate: str
    seconds: int
    tokens: int
    arrival: str = "poisson"
    server: tuple[str, ...] = ()


LOADS = [
    Load(
        "60,000 chunks/s",
        (
            Bound("ttft_from_send p50", 1.0, TTFT_MS), Bound("ttft_from_send p99", 1.0, TTFT_MS),
            Bound("ttft p99", 3.0, TTFT_MS), Bound("itl p50", 0.1, ITL_MS), Bound("itl p99", 0.5, ITL_MS),
            Bound("us a chunk", 12.0), Bound("peak MB", 500.0), Bound("not ok", 0.0),
        ),
        "300/s", 15, 200,
    ),
    Load(
        "100,000 chunks/s",
        (Bound("itl p99", 1.0, ITL_MS, or_invalid=True), Bound("ttft_from_send p99", 3.0, TTFT_MS, or_invalid=True)),
        "500/s", 10, 200,
    ),
    Load(
        "1,000 requests/s of 1 token", (Bound("dispatch lag p99", 2.0), Bound("not ok", 0.0)),
        "1000/s", 20, 1, "constant",
    ),
    Load(
        "5,000 streams of 100 tokens at 100 ms", (Bound("not ok", 0.0), Bound("peak MB", FIXED_MB + 5_000 * 0.06)),
        "1000/s", 5, 100, "constant", ("--itl-us", "100000"),
    ),
]  # fmt: skip
# The server is on the same two cores: what it was late itself is no error of ours.
BUSY = Load(
    "60,000 chunks/s, one core taken by a busy process",
    (
        Bound("ttft_from_send p50", 1.0, TTFT_MS, or_invalid=True), Bound("itl p50", 0.1, ITL_MS, or_invalid=True),
        Bound("itl p99 beyond the server's lateness", 1.0, or_invalid=True),
    ),
    "300/s", 10, 200,
)  # fmt: skip


def compiled(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("the exact server needs a C compiler")
    out = folder / "exact_server"
    subprocess.run([compiler, "-O2", "-o", str(out), str(HERE / "exact_server.c")], check=True)
    return out


@contextlib.contextmanager
def serving(binary: Path, *options: str) -> Iterator[str]:
    process = subprocess.Popen(
        [binary, "--cpu", "0", *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


class PeakMemory(threading.Thread):
    """The largest sum of PSS over a process tree."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.root = psutil.Process(pid)
        self.peak = 0
        self.ended = threading.Event()

    def run(self) -> None:
        largest = 0
        while not self.ended.wait(0.25):
            resident = self._sum(lambda process: process.memory_info().rss)
            if resident > 1.03 * largest:
                largest = resident
                self.peak = max(self.peak, self._sum(lambda process: process.memory_full_info().pss))

    def _sum(self, of: Callable[[psutil.Process], int]) -> int:
        total = 0
        with contextlib.suppress(psutil.Error):
            for process in (self.root, *self.root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += of(process)
        return total


def measured(url: str, load: Load, out: Path, *flags: str, python: str = sys.executable) -> dict[str, Any]:
    command = [
        python, "-c", "from tailgate.harness.cli import main; raise SystemExit(main())", "run", "--target", url,
        "--rate", load.rate, "--arrival", load.arrival, "--duration", f"{load.seconds}s", "--prompt-tokens", "128",
        "--output-tokens", str(load.tokens), "--seed", "3", "--out", str(out), "--quiet", "--no-settle", *flags,
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"})
    memory = PeakMemory(process.pid)
    memory.start()
    code = process.wait(300)
    memory.ended.set()
    memory.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((out / "summary.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"code": code, "cpu_s": cpu, "peak_mb": memory.peak / 2**20, "summary": summary}


def show(load: Load, found: dict[str, Any], server: dict[str, float]) -> None:
    summary = found["summary"]
    latency, client = summary["latency_ms"], summary["client"]
    failing = [check["name"] for check in summary["checks"] if check["status"] == "fail"]
    ok = summary["load"]["requests"]["ok"]

    def pair(name: str) -> str:
        return "/".join("-" if latency[name][q] is None else f"{latency[name][q]:.2f}" for q in ("p50", "p99"))

    verdict = "VALID" if summary["valid"] else f"INVALID {', '.join(failing)}"
    print(
        f"\n{load.name}: {verdict}, exit code {found['code']}, requests {summary['load']['requests']}\n"
        f"  ttft_from_send p50/p99 {pair('ttft_from_send')}  ttft {pair('ttft')}  itl {pair('itl')} ms\n"
        f"  dispatch lag p99 {client['dispatch_lag_ms']['p99']:.2f} ms  receive lag p99 "
        f"{client['receive_lag_ms']['p99']:.2f} ms  busiest second {client['cpu_fraction_max']:.0%}\n"
        f"  CPU of all processes {found['cpu_s']:.2f} s = {found['cpu_s'] / ok / load.tokens * 1e6:.2f} us a chunk, "
        f"peak memory {found['peak_mb']:.0f} MB\n"
        f"  the server's own lateness p50/p99/max {server['p50_ms']}/{server['p99_ms']}/{server['max_ms']} ms"
    )


def figure(name: str, load: Load, found: dict[str, Any], server: dict[str, float]) -> float:
    """A bound's figure; infinite where it is not known."""
    summary = found["summary"]
    requests = summary["load"]["requests"]
    match name:
        case "us a chunk":
            return found["cpu_s"] / max(requests["ok"], 1) / load.tokens * 1e6
        case "peak MB":
            return found["peak_mb"]
        case "not ok":
            return requests["planned"] - requests["ok"]
        case "dispatch lag p99":
            return summary["client"]["dispatch_lag_ms"]["p99"]
        case "itl p99 beyond the server's lateness":
            return (summary["latency_ms"]["itl"]["p99"] or float("inf")) - ITL_MS - server["p99_ms"]
        case _:
            latency, percentile = name.split()
            return summary["latency_ms"][latency][percentile] or float("inf")


def broken(load: Load, found: dict[str, Any], server: dict[str, float]) -> list[str]:
    """The bounds that don't hold, in words. A run that is INVALID breaks all those that don't allow for it."""
    said = []
    for bound in load.bounds:
        if not found["summary"]["valid"]:
            if not bound.or_invalid:
                said.append(f"{load.name}: INVALID, so {bound.figure} is not known")
            continue
        value = figure(bound.figure, load, found, server)
        if abs(value - bound.truth) > bound.most:
            of = f" of {bound.truth:g}" if bound.truth else ""
            said.append(f"{load.name}: {bound.figure} is {value:.4g}, must be within {bound.most:g}{of}")
    return said


def against_the_exact_server(binary: Path, load: Load, out: Path) -> list[str]:
    with serving(binary, *load.server) as url:
        found = measured(url, load, out)
        with urlopen(f"{url}/lateness") as answer:
            server = json.load(answer)
    show(load, found, server)
    return broken(load, found, server)


def with_one_core_taken_away(binary: Path, out: Path) -> list[str]:
    until = time.monotonic() + 60
    busy = subprocess.Popen([sys.executable, "-c", f"import time\nwhile time.monotonic() < {until}: pass"])
    try:
        return against_the_exact_server(binary, BUSY, out)
    finally:
        busy.kill()
        busy.wait()


def end(failures: Sequence[str]) -> int:
    """The exit code, the broken bounds said."""
    for text in failures:
        print(f"BROKEN  {text}")
    return 1 if failures else 0


def main() -> int:
    """All loads, or those whose name contains the first argument."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        binary = compiled(Path(folder))
        for number, load in enumerate(LOADS):
            if wanted in load.name:
                failures += against_the_exact_server(binary, load, Path(folder) / str(number))
        if wanted in BUSY.name:
            failures += with_one_core_taken_away(binary, Path(folder) / "busy")
    return end(failures)


if __name__ == "__main__":
    sys.exit(main())
