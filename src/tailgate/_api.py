"""The functions of the public API; `import tailgate` offers them (docs/api.md shows them at work)."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, repeat
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from tailgate.harness.config.run_spec import RunSpec
    from tailgate.reports.compare.comparison import Comparison
    from tailgate.reports.summary.model import Summary

Place = str | PathLike[str]


@dataclass(frozen=True)
class LoadedRun:
    """A run directory: its summary, and its tables as pandas frames, each read when it is first asked for.

    Attributes:
        path: the run directory, which also holds `report.html`.
        summary: the run's verdict and figures, as `summary.json` has them. Latencies are in ms, shares are fractions,
            and None stands where the sample is too small.

    Each table raises UserError where its file is missing or damaged.
    """

    path: Path
    summary: "Summary" = field(repr=False)

    @cached_property
    def requests(self) -> "pd.DataFrame":
        """One row a planned request, indexed by its place in the plan: what was recorded, and its latencies.

        Names that end in `_ms` are milliseconds (`ttft_ms`, `tpot_ms`, `e2e_ms`, ...), NaN where there is none; names
        that end in `_ns` are nanoseconds from the run's start; `good` says whether the request met the SLO.
        """
        from tailgate.reports import frames

        return frames.requests(self.path)

    @cached_property
    def arrivals(self) -> "pd.Series[float]":
        """When each piece of each answer came, in ms after the answer's first, by request and number of the piece."""
        from tailgate.reports import frames

        return frames.arrivals(self.path)

    @cached_property
    def telemetry(self) -> "pd.DataFrame":
        """All samples of the server's metrics and of the GPUs, one a row; `t_s` is seconds from the run's start."""
        from tailgate.reports import frames

        return frames.telemetry(self.path)


@dataclass(frozen=True)
class GateResult:
    """What a gate said.

    Attributes:
        verdict: PASS, FAIL, INCONCLUSIVE or INVALID.
        exit_code: the command's: 0, 1, 3 or 4.
        why: one sentence.
        details: everything else, as `verdict.json` has it (`tailgate.verdict/1`).
    """

    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
    exit_code: int
    why: str
    details: dict[str, Any] = field(repr=False)


def load_run(path: Place) -> LoadedRun:
    """A run from its directory. One that was killed, or never summarised, is summarised first, which writes there.

    Raises:
        UserError: it is no run directory, the run is still going on, or its files are missing or damaged.
    """
    from tailgate.reports.build import build
    from tailgate.reports.summary.summary import stored_summary

    path = Path(path)
    return LoadedRun(path, stored_summary(path) or build(path))


def run(spec: "Place | Mapping[str, Any] | RunSpec", *, out: Place) -> LoadedRun:
    """Do one run and load it, whatever its verdict is: `summary.verdict` says that.

    The run has a process of its own, the `tailgate run` command, and this call waits for its end. So it works where an
    event loop is running already, as in a notebook, and neither that loop nor this process' memory, threads or signal
    handlers disturb the measuring. An interrupt (Ctrl-C, a notebook's stop button) goes on to that process: it sends
    nothing more, waits for the answers in flight, and reports; a second one cancels those.

    Args:
        spec: a YAML file, the same as a dict, or a `Spec`. In the latter two, file names are relative to the working
            directory.
        out: the run directory, which must be new or empty.

    Raises:
        UserError: something is wrong with spec, target, environment or `out`; nothing was measured.
        KeyboardInterrupt: interrupted; `load_run(out)` has what was measured.
    """
    if isinstance(spec, str | PathLike):
        _tailgate("run", fspath(spec), f"--out={fspath(out)}", "--quiet")
    else:
        _tailgate("run", "-", f"--out={fspath(out)}", "--quiet", standard_input=_yaml(spec))
    return load_run(out)


def compare(*runs: Place, anyway: bool = False, html: Place | None = None) -> "Comparison":
    """Configurations side by side: figures with intervals, ratios to the first one, Pareto fronts, what differed.

    Args:
        runs: run directories or globs, each with a label in front if you like: `"fp8=runs/fp8-*"`. Runs of one label
            at one load are replicates. The first label is the baseline.
        anyway: compare runs that are invalid or of different workloads, with a warning.
        html: also write the comparison's page here.

    Raises:
        UserError: nothing matches, there is one run only, or the runs can't be compared.
    """
    from tailgate.reports.compare import comparison
    from tailgate.reports.compare.runs import load_runs
    from tailgate.reports.documents.comparison import comparison_document
    from tailgate.reports.documents.render import html as page
    from tailgate.reports.rundir.json_files import write_atomic

    result = comparison.compare(load_runs([fspath(run) for run in runs]), anyway=anyway)
    if html is not None:
        write_atomic(Path(html), page.html(comparison_document(result)).encode())
    return result


def gate(
    policy: Place, *runs: Place, baseline: str | None = None, candidate: str | None = None, out: Place | None = None,
    anyway: bool = False,
) -> GateResult:  # fmt: skip
    """Is the candidate slower than the baseline? Measures pairs of runs, or judges those that there are.

    In a process of its own, as `run`.

    Args:
        policy: the YAML file that says what decides (docs/gate.md).
        runs: hold these runs against the policy's thresholds and measure nothing.
        baseline, candidate: globs of stored runs to compare; without them and `runs` the policy's targets are measured.
        out: folder for runs and documents; by default one below `runs/` if anything is measured, else none.
        anyway: measure even where this machine's own error will hide what the policy asks.

    Raises:
        UserError: something is wrong with policy, runs, targets or environment.
        KeyboardInterrupt: interrupted; the folder holds what was measured.
    """
    import json

    flags = {"--policy": policy, "--baseline": baseline, "--candidate": candidate, "--out": out}
    words = [f"{flag}={fspath(value)}" for flag, value in flags.items() if value is not None]
    words += ["--anyway"] if anyway else []
    details = json.loads(_tailgate("gate", *words, "--json", "--", *(fspath(run) for run in runs)))
    return GateResult(details["verdict"], details["exit_code"], details["why"], details)


def _yaml(spec: "Mapping[str, Any] | RunSpec") -> str:
    """As a file would have it (JSON is YAML)."""
    import json

    from tailgate.workloads.common.errors import UserError

    plain = spec if isinstance(spec, Mapping) else spec.model_dump(mode="json", exclude_unset=True)
    try:
        return json.dumps(plain, default=fspath)
    except TypeError as error:
        raise UserError(f"holds a value that no YAML has: {error}", where="spec") from error


def _tailgate(*words: str, standard_input: str = "") -> str:
    """Run a command of ours to its end; what it printed, whatever its verdict."""
    from tailgate.workloads.common.errors import UserError
    from tailgate.workloads.common.import_paths import python_module

    # A session of its own: Ctrl-C in a terminal would reach it twice otherwise, and a second one cancels requests.
    process = subprocess.Popen(
        [*python_module("tailgate"), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    interrupts = chain([signal.SIGINT], repeat(signal.SIGTERM))
    to_send: str | None = standard_input
    while True:
        try:
            printed, errors = process.communicate(to_send)
            break
        except KeyboardInterrupt:
            process.send_signal(next(interrupts))
            to_send = None
    if process.returncode == 130:
        raise KeyboardInterrupt
    if process.returncode == 2:
        raise UserError(errors.strip().removeprefix(f"tailgate {words[0]}: "))
    if process.returncode not in (0, 1, 3, 4) or ("--json" in words and not printed):
        raise RuntimeError(errors.strip())
    sys.stderr.write(errors)
    return printed
