"""Every fault of the table (tests/kit/faults) against a real run: what it loses, how long the run takes to end.

Prints a Markdown table, which docs/faults.md keeps; exit code 1 where a run is not what it must be.
`make bench-faults`, or `python tests/bench/bench_faults.py [PART OF A FAULT'S NAME]`.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.kit.faults import processes, servers
from tests.kit.faults.outcome import FaultyRun


def table(wanted: str) -> Iterator[tuple[str, str, FaultyRun, list[str], str]]:
    """(what struck, its name, the run, what is wrong with it, what is lost) of each fault."""
    for server in servers.SERVER_FAULTS:
        if wanted in f"server: {server.name}":
            with tempfile.TemporaryDirectory() as folder:
                run = servers.run(server, Path(folder))
                became = "" if server.becomes == "ok" else f"these requests are `{server.becomes}`"
                yield "server", server.name, run, servers.problems(server, run), server.lost or became or "nothing"
    for process in processes.PROCESS_FAULTS:
        if wanted in f"process: {process.name}":
            with tempfile.TemporaryDirectory() as folder:
                run = processes.run(process, Path(folder))
                yield "process", process.name, run, processes.problems(process, run), process.lost


def main() -> int:
    """All faults, or those whose name contains the first argument."""
    failures = []
    print("| | fault | exit code | the run ends after, s | what is lost |\n|---|---|---|---|---|")
    for kind, name, run, wrong, lost in table(sys.argv[1] if len(sys.argv) > 1 else ""):
        print(f"| {kind} | {name} | {run.code} | {run.took_s:.1f} | {lost} |", flush=True)
        failures += [f"{name}: {problem}" for problem in wrong]
    for failure in failures:
        print(f"WRONG  {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
