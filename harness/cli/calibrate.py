"""`tailgate calibrate`: what this machine can measure honestly, found out against a server of known schedule."""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tailgate.harness.config.arguments import Parser, number

_LEGEND = "±: half of the load generator's own error; off: how far from the null server's schedule."
_NO_FLOOR = "The floor, a plain C client, is not shown: there is no C compiler (cc)."

if TYPE_CHECKING:
    from tailgate.harness.calibrate.floor import FloorStep
    from tailgate.harness.calibrate.ladder import LadderStep
    from tailgate.harness.calibrate.peers import PeerResult
    from tailgate.harness.host.calibration import Calibration

_COLUMNS = (
    ("chunks/s", "chunks_per_s", "{:,.0f}"),
    ("requests/s", "requests_per_s", "{:,.0f}"),
    ("TTFT p50, ±ms", "ttft_own_p50", "{:.2f}"),
    ("p99", "ttft_own_p99", "{:.2f}"),
    ("ITL p50, ±ms", "itl_own_p50", "{:.2f}"),
    ("p99", "itl_own_p99", "{:.2f}"),
    ("TTFT p50 off, ms", "ttft_error_p50", "{:.2f}"),
    ("p99", "ttft_error_p99", "{:.2f}"),
    ("ITL p50 off, ms", "itl_error_p50", "{:.2f}"),
    ("p99", "itl_error_p99", "{:.2f}"),
    ("dispatch lag p99, ms", "dispatch_lag_p99", "{:.2f}"),
    ("receive lag p99, ms", "receive_lag_p99", "{:.2f}"),
    ("busy", "cpu_share", "{:.0%}"),
    ("server late p99, ms", "server_late_p99", "{:.2f}"),
)


def run(argv: list[str]) -> int:
    """Calibrate, print the table and the result in one line, and store the result."""
    parser = Parser(
        prog="tailgate calibrate",
        description="Find out how much load this machine can measure honestly.",
    )
    parser.add_argument(
        "--step", type=number(float, 2, 600), default=6.0, metavar="SECONDS", help="The length of a step (default: 6)."
    )
    parser.add_argument("--injectors", type=number(int, 1, 1024), default=1, help="Injector processes (default: 1).")
    parser.add_argument(
        "--against",
        default="",
        metavar="TOOLS",
        help="Also run these, if they are on the PATH: vllm-bench,aiperf.",
    )
    parser.add_argument("--tokenizer", metavar="DIR", help="A tokenizer for the tools that need one.")
    parser.add_argument("--json", action="store_true", help="Print the result as JSON and nothing else on stdout.")
    parser.add_argument("--quiet", action="store_true", help="Print only the last line.")
    given = parser.parse_args(argv)
    from tailgate.harness.calibrate import peers
    from tailgate.harness.host import calibration as store

    names = [name.strip() for name in given.against.split(",") if name.strip()]
    if names:
        peers.require_known(names)  # before minutes of measuring
    show = not (given.json or given.quiet)
    calibration, against = asyncio.run(_calibrate(given, names, show))
    path = store.save(calibration)
    if given.json:
        json.dump({**asdict(calibration), "against": [asdict(tool) for tool in against]}, sys.stdout, indent=1)
        print()
        return 0
    for tool in against:
        print(tool.line())
    print(line(calibration))
    if show:
        print(f"kept in {path}")
    return 0


def line(calibration: "Calibration") -> str:
    chunks, requests = f"{calibration.chunks_per_s:,.0f} chunks/s", f"{calibration.requests_per_s:,.0f} requests/s"
    words = {True: "at least", False: "up to"}
    second = "" if calibration.chunks_open == calibration.requests_open else f"{words[calibration.requests_open]} "
    return f"this machine measures honestly {words[calibration.chunks_open]} {chunks} and {second}{requests}"


async def _calibrate(given: argparse.Namespace, names: list[str], show: bool) -> "tuple[Calibration, list[PeerResult]]":
    from tailgate.harness.calibrate import ladder, peers
    from tailgate.harness.calibrate.floor import plain_client
    from tailgate.harness.host import calibration as store

    table: list[LadderStep] = []

    def done(step: "LadderStep") -> None:
        table.append(step)
        if show:
            print(_row(step), flush=True)
        if show and step.floor is not None:
            print(_floor_row(step.floor), flush=True)

    reported: list[PeerResult] = []
    async with ladder.null_server() as url, plain_client() as client:
        if show:
            print(_LEGEND if client is not None else f"{_LEGEND} {_NO_FLOOR}")
            print("  ".join(f"{title:>{_width(title)}}" for title, _, _ in _COLUMNS) + "  verdict")
        by_chunks = await ladder.ladder(url, "chunks", given.step, given.injectors, done, client)
        by_requests = await ladder.ladder(url, "requests", given.step, given.injectors, done)
        best = ladder.highest(by_chunks).chunks_per_s
        if names:
            with tempfile.TemporaryDirectory(prefix="tailgate-") as folder:
                rate = best / ladder.TOKENS
                reported = await peers.against(names, url, rate, ladder.TOKENS, Path(folder), given.tokenizer)
    calibration = store.Calibration(
        chunks_per_s=best,
        requests_per_s=ladder.highest(by_requests).requests_per_s,
        chunks_open=by_chunks[-1].honest,
        requests_open=by_requests[-1].honest,
        injectors=given.injectors,
        made_at=store.now(),
        steps=[asdict(step) for step in table],
    )
    return calibration, reported


def _floor_row(floor: "FloorStep") -> str:
    """The plain C client under the same load, in the columns of what it is off the truth."""
    from tailgate.harness.calibrate.ladder import ITL_MS, TTFT_MS

    off = {"ttft_error_p50": floor.ttft_p50 - TTFT_MS, "ttft_error_p99": floor.ttft_p99 - TTFT_MS}
    off |= {"itl_error_p50": floor.itl_p50 - ITL_MS, "itl_error_p99": floor.itl_p99 - ITL_MS}
    cells = [f"{form.format(abs(off[name])) if name in off else '':>{_width(title)}}" for title, name, form in _COLUMNS]
    return "  ".join(cells) + f"  floor: plain C client, {floor.cpu_us_a_chunk:.1f} µs of CPU a chunk"


def _width(title: str) -> int:
    return max(len(title), 7)


def _row(step: "LadderStep") -> str:
    cells = []
    for title, name, form in _COLUMNS:
        value = getattr(step, name)
        cells.append(f"{'-' if value is None else form.format(value):>{_width(title)}}")
    return "  ".join(cells) + f"  {'honest' if step.honest else step.why}"
