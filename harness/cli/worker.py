"""`tailgate worker --master HOST[:PORT]`: this machine sends its share of a run that another one controls."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from tailgate.harness.config.arguments import Parser
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.import_paths import python_module


def run(argv: list[str]) -> NoReturn:
    """Become the worker's process: Locust must be the first thing it imports."""
    options = _parser().parse_args(argv)
    from tailgate.harness.host.linux_only import require_linux
    from tailgate.loadgen.control.address import split_address
    from tailgate.loadgen.distributed.protocol import DEFAULT_PORT

    require_linux()
    host, port = split_address(options.master, DEFAULT_PORT, "--master")
    folder = _folder(options.spool)
    arguments = [
        "--host", host, "--port", str(port), "--injectors", str(_injectors(options.injectors)),
        "--folder", str(folder), "--wait", str(_seconds(options.wait, "--wait")),
        "--alone", str(_seconds(options.alone, "--alone")), "--name", options.name or "",
    ]  # fmt: skip
    if options.locustfile is not None:
        arguments += ["--locustfile", str(options.locustfile.resolve())]
    if options.token_env:
        arguments += ["--token-env", options.token_env]
    if options.api_key_env:
        arguments += ["--key-variable", options.api_key_env]
    sys.stdout.flush()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.execv(sys.executable, [*python_module("tailgate.loadgen.distributed.worker"), *arguments])


def _seconds(text: str, flag: str) -> float:
    from tailgate.workloads.common.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UserError(str(error), where=flag) from error


def _injectors(text: str) -> int:
    if text == "auto":
        from tailgate.harness.host.cores import half_of_the_cores

        return half_of_the_cores()
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise UserError(f"{text!r} is neither a number from 1 to 256 nor auto", where="--injectors")
    return int(text)


def _folder(spool: Path | None) -> Path:
    try:
        if spool is not None:
            spool.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="tailgate-worker-", dir=spool))
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=f"--spool {spool}") from error


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tailgate worker",
        description="Join a run that was started with `tailgate run SPEC --expect-workers N`, send a share of its "
        "load, hand over the records, and exit.",
        epilog="Exit codes: 0 done, 1 it failed or lost its master, 2 wrong input or turned away, 130 interrupted.",
    )
    parser.add_argument("--master", required=True, metavar="HOST[:PORT]", help="Where the master waits (port: 5557).")
    parser.add_argument("--injectors", default="1", metavar="K|auto", help="Injector processes here (default: 1).")
    parser.add_argument("--name", help="This worker's name in reports (default: worker-N).")
    parser.add_argument("--wait", default="60s", metavar="TIME", help="Wait this long for the master (default: 60s).")
    parser.add_argument(
        "--alone",
        default="30s",
        metavar="TIME",
        help="End the load when the master is gone so long (default: 30s).",
    )
    parser.add_argument(
        "--token-env",
        metavar="VARIABLE",
        help="The variable that holds the secret shared with the master; needed unless that is on this machine.",
    )
    parser.add_argument(
        "--api-key-env",
        metavar="VARIABLE",
        help="The variable that holds the API key here, if the target asks for one.",
    )
    parser.add_argument("--locustfile", type=Path, metavar="FILE", help="This machine's copy of the run's locustfile.")
    parser.add_argument("--spool", type=Path, help="Where records are kept until the master has them.")
    return parser
