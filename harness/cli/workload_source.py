"""Where `tailgate workload` gets a workload from: a profile, a spec, a trace; and the flags that go before it."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tailgate.harness.cli.flags import LOAD, TRACE, Flag, add_flags, spec_from
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.workloads.config.workload import TraceSpec, WorkloadSpec

_TRACE_FLAGS: Final = (
    *TRACE,
    Flag("--block-tokens", "workload.trace.block_tokens", "Tokens of a prefix block, if `blocks` is named.", type=int),
)  # fmt: skip


def add_workload_flags(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, LOAD)
    parser.add_argument("--seed", type=int, help="The seed (default: the spec's, else 0).")


def add_trace_flags(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, _TRACE_FLAGS, "trace")


@dataclass(frozen=True)
class Source:
    """A workload to be planned: its name, its resolved spec, and the seed of its plan."""

    name: str
    spec: "WorkloadSpec"
    seed: int


def source_of(options: argparse.Namespace) -> Source:
    """The resolved workload of the source and the flags: what a run of the same would send."""
    from pydantic import ValidationError

    from tailgate.workloads.config.profiles import names
    from tailgate.workloads.config.workload import WorkloadSpec, explain

    source = str(options.source)
    path = Path(source)
    folder, name, seed = Path(), source, 0
    if source in names():
        data: dict[str, Any] = {"profile": source}
    elif path.suffix in (".yaml", ".yml"):
        data, seed = _from_yaml(path)
        folder, name = path.parent, path.stem
    elif path.exists():
        data, name = {"trace": {"file": str(path.resolve())}}, path.name.split(".")[0]
    else:
        import difflib

        near = difflib.get_close_matches(source, names(), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Profiles: {', '.join(names())}"
        raise UserError("neither a profile nor a file", where=source, remedy=hint)
    try:
        spec = WorkloadSpec.model_validate(_with_flags(data, options)).resolved(folder)
    except ValidationError as error:
        raise explain(error, source) from error
    return Source(name, spec, seed if options.seed is None else options.seed)


def _from_yaml(path: Path) -> tuple[dict[str, Any], int]:
    from tailgate.harness.config.run_spec import load

    data = load(path)
    if "sources" in data and "workload" in data:
        return {"profile": path.name}, 0
    workload = data.get("workload", data)
    if not isinstance(workload, dict):
        raise UserError("`workload` is not a mapping", where=str(path))
    seed = data.get("seed", 0) if "workload" in data else 0
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"`seed` is {seed!r}, not a whole number of at least 0", where=str(path))
    return dict(workload), seed


def _with_flags(data: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Flags over the source; of a trace, rate and duration are the trace's own, unless `arrivals` replace its times."""
    given = spec_from(options, LOAD, "workload.")
    if isinstance(data.get("trace"), dict) and data.get("arrivals"):
        data = {**data, "trace": data["trace"] | spec_from(options, _TRACE_FLAGS, "workload.trace.")}
    elif isinstance(data.get("trace"), dict):
        given = {key: value for key, value in given.items() if key not in ("arrivals", "duration")}
        return {**data, **given, "trace": data["trace"] | _trace_flags(options)}
    if "arrivals" in given:
        given["arrivals"] = (data.get("arrivals") or {}) | given["arrivals"]
        given["arrivals"].pop("stages", None)
    return data | given


def _trace_flags(options: argparse.Namespace) -> dict[str, Any]:
    own = {key: getattr(options, key, None) for key in ("rate", "duration")}
    given = {key: value for key, value in own.items() if value is not None}
    return spec_from(options, _TRACE_FLAGS, "workload.trace.") | given


def trace_of(options: argparse.Namespace, file: Path) -> "TraceSpec":
    from pydantic import ValidationError

    from tailgate.workloads.config.workload import WorkloadSpec, explain

    try:
        spec = WorkloadSpec.model_validate({"trace": {"file": str(file.resolve())} | _trace_flags(options)})
    except ValidationError as error:
        raise explain(error, str(file)) from error
    trace = spec.resolved(Path()).trace
    if trace is None:
        raise ValueError("a trace was given")
    return trace
