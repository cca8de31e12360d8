"""Every fault of the tables (tests/kit/faults) against a real run: what it loses, how long the run takes to end.

Prints Markdown tables; exit code 1 where a run is not what it must be. `make bench-faults`, or
`python tests/bench/bench_faults.py [--write] [PART OF "server: NAME" OR "process: NAME"]`. `--write` puts each line
that was run, and was right, into docs/faults.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.kit.faults import processes, servers
from tests.kit.faults.outcome import FaultyRun

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"
HEADS = {
    "server": "| the server | the run is | exit code | requests that met it become | the run takes, s "
    "| what else is lost |",
    "process": "| what happens | the run is then | exit code | requests beside `ok` are "
    "| the first of them was due before it, s | the run ends after, s | what is lost |",
}


def names(kind: str) -> list[str]:
    """The faults of a kind, in the order of their table."""
    return [fault.name for fault in (servers.SERVER_FAULTS if kind == "server" else processes.PROCESS_FAULTS)]


def lines(wanted: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """(kind, name, line of the table, what is wrong) of each fault."""
    for server in servers.SERVER_FAULTS:
        if wanted in f"server: {server.name}":
            with tempfile.TemporaryDirectory() as folder:
                run = servers.run(server, Path(folder))
                cells = (*_ended(run), _words(run, struck=True), f"{run.took_s:.1f}", server.lost)
                yield "server", server.name, _line(server.name, *cells), servers.problems(server, run)
    for process in processes.PROCESS_FAULTS:
        if wanted in f"process: {process.name}":
            with tempfile.TemporaryDirectory() as folder:
                run = processes.run(process, Path(folder))
                back = f"{run.reaches_back_s():.2f}" if run.measured else "-"
                cells = (*_ended(run), _words(run), back, f"{run.took_s:.1f}", process.lost)
                yield "process", process.name, _line(process.name, *cells), processes.problems(process, run)


def _ended(run: FaultyRun) -> tuple[str, str]:
    return run.manifest["state"] if run.measured else "not begun", str(run.code)


def _words(run: FaultyRun, struck: bool | None = None) -> str:
    """The statuses of the requests that met the fault, or of all that are not ok."""
    statuses = run.statuses(struck) if run.measured else {}
    if struck and not statuses and run.measured:  # a page had the fault
        statuses = run.statuses()
    return ", ".join(f"`{status}`" for status in sorted(statuses) if struck or status != "ok")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell or '-' for cell in cells)} |"


def write(kind: str, name: str, line: str) -> None:
    """Put a fault's line into the document's table, and leave out lines of faults that are no more."""
    begin, end = f"<!-- {kind} faults -->\n", f"<!-- end of {kind} faults -->"
    before, _, rest = DOCUMENT.read_text().partition(begin)
    table, _, after = rest.partition(end)
    kept = {row.split("|")[1].strip(): row for row in table.splitlines() if row} | {name: line}
    rows = [kept[each] for each in names(kind) if each in kept]
    rule = "|---" * (HEADS[kind].count("|") - 1) + "|"
    DOCUMENT.write_text(before + begin + "\n".join((HEADS[kind], rule, *rows, "")) + end + after)


def main() -> int:
    """All faults, or those that the argument names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("wanted", nargs="?", default="")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    failures, last = [], ""
    for kind, name, line, wrong in lines(arguments.wanted):
        if kind != last:
            print(f"\n{HEADS[kind]}\n{'|---' * (HEADS[kind].count('|') - 1)}|")
        last = kind
        print(line, flush=True)
        failures += [f"{name}: {problem}" for problem in wrong]
        if arguments.write and not wrong:
            write(kind, name, line)
    for failure in failures:
        print(f"WRONG  {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
