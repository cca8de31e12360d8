"""The command line: one module a command, imported only when it is called, so that `--help` is quick."""

import atexit
import gc
import sys
from importlib import import_module
from typing import Final

from tailgate.harness.cli.edge import guard_streams, unforeseen
from tailgate.loadgen.hide_pandas import hide_pandas
from tailgate.workloads.common.blas import import_numpy_alone
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.import_paths import installed_first

# name -> (module, one line for --help)
COMMANDS: Final = {
    "run": ("tailgate.harness.cli.run", "run a load test: run directory, summary, report.html"),
    "gate": (
        "tailgate.harness.cli.experiments.gate",
        "test whether a candidate is slower: PASS, FAIL, INCONCLUSIVE or INVALID",
    ),
    "calibrate": ("tailgate.harness.cli.calibrate", "find out how much load this machine can measure honestly"),
    "worker": ("tailgate.harness.cli.worker", "join a distributed run and send its share of the load"),
    "workload": ("tailgate.harness.cli.workload", "list, show, plan, preview, fit and convert profiles and traces"),
    "serve": ("tailgate.harness.cli.serve", "serve the embedded engine"),
    "mark": ("tailgate.harness.cli.mark", "put a mark on the timeline of a run that is going on"),
    "report": ("tailgate.harness.cli.report", "rebuild the documents of a run from its files"),
    "compare": ("tailgate.harness.cli.compare", "compare runs side by side: table, intervals, Pareto fronts, cost"),
}

_USAGE: Final = "usage: tailgate COMMAND [...]"


def main(argv: list[str] | None = None) -> int:
    """Entry of `tailgate`; the exit codes are 0 PASS, 1 FAIL, 2 wrong input, 3 INCONCLUSIVE, 4 INVALID, 130.

    What nobody foresaw exits 4 once anything was measured, 2 before: never 1.
    """
    guard_streams()
    if argv is None:  # this process is all ours
        installed_first()
        hide_pandas()
        gc.set_threshold(50_000, 20, 50)  # this and the next as `tailgate._child` does it
        atexit.register(gc.freeze)
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"tailgate {version('tailgate')}")
        return 0
    command, rest = arguments[0], arguments[1:]
    try:
        if command not in COMMANDS:
            raise _unknown(command)
        if command != "mark":  # the one that needs none
            import_numpy_alone()
        return int(import_module(COMMANDS[command][0]).run(rest))
    except UserError as error:
        # A key may be called like its command, as `workload` is: it is said once.
        print(f"tailgate {command}: {str(error).removeprefix(f'{command}: ')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the outermost edge
        return unforeseen(command, error)


def _unknown(command: str) -> UserError:
    import difflib

    close = difflib.get_close_matches(command, COMMANDS, 1)
    return UserError(
        "no such command", remedy=f"Did you mean {close[0]!r}?" if close else "tailgate --help lists them."
    )


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        [
            _USAGE,
            "",
            "Load tests, benchmarks and performance gates for LLM servers.",
            "Every number it prints is true, or marked as doubtful.",
            "",
            *lines,
            "",
            "Run tailgate COMMAND --help for more.",
        ]
    )
