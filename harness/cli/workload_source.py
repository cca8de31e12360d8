"""Where `tailgate workload` gets a workload from: a profile, a spec, a trace; and the flags that go before it."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.workloads.config.workload import TraceSpec, WorkloadSpec

_TRACE_KEYS: Final = ("start", "speed", "rate_by", "time_unit", "block_tokens")


def add_workload_flags(parser: argparse.ArgumentParser) -> None:
    """What goes before the source's own rate, length and context."""
    parser.add_argument("--rate", help="arrivals per second, e.g. 12/s; of a trace: its mean rate")
    parser.add_argument("--duration", help="e.g. 10m; of a trace: the slice's length")
    parser.add_argument("--requests", type=int, help="end after this many requests")
    parser.add_argument("--warmup", help="length of the warm-up before it")
    parser.add_argument("--users", type=int, help="closed loop with this many users")
    parser.add_argument("--max-context", type=int, help="longest prompt + answer, in tokens")
    parser.add_argument(
        "--over-context", choices=["error", "clip", "scale", "drop"], help="what to do with longer ones"
    )
    parser.add_argument("--length-scale", type=float, help="multiply all lengths")
    parser.add_argument("--seed", type=int, help="default: the spec's, else 0")


def add_trace_flags(parser: argparse.ArgumentParser) -> None:
    """How a trace is read, and which part of it."""
    group = parser.add_argument_group("trace")
    group.add_argument("--trace-format", help="default: told from the file")
    group.add_argument("--start", help="skip this much of the trace")
    group.add_argument("--speed", type=float, help="compress the trace's time by this factor")
    group.add_argument("--rate-by", choices=["auto", "thin", "superpose", "speed"], help="how --rate is reached")
    group.add_argument(
        "--columns", action="append", default=[], metavar="KEY=COLUMN",
        help="name a column of a csv, jsonl or parquet file; keys: time, prompt_tokens, output_tokens, session, ...",
    )  # fmt: skip
    group.add_argument(
        "--time-unit", choices=["s", "ms", "us", "ns", "calendar"], help="of the time column (default: s)"
    )
    group.add_argument("--block-tokens", type=int, help="tokens of a prefix block, where `blocks` is named")
    group.add_argument("--skip-bad-rows", action="store_true", help="count broken rows instead of refusing them")


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
    """The workload and the seed of a spec, or a profile file as what it is."""
    from tailgate.harness.config.run_spec import load

    data = load(path)
    if "sources" in data and "workload" in data:
        return {"profile": path.name}, 0
    found = data.get("workload", data)
    if not isinstance(found, dict):
        raise UserError("`workload` is no mapping", where=str(path))
    seed = data.get("seed", 0) if "workload" in data else 0
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"`seed` is {seed!r}, no whole number of at least 0", where=str(path))
    return dict(found), seed


def _with_flags(data: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Flags over the source; of a trace, rate and duration are the trace's own."""
    data = dict(data)
    for key in ("requests", "warmup", "max_context", "over_context", "length_scale", "users"):
        if getattr(options, key) is not None:
            data[key] = getattr(options, key)
    if isinstance(data.get("trace"), dict):
        data["trace"] = data["trace"] | _trace_flags(options)
        return data
    if options.duration is not None:
        data["duration"] = options.duration
    if options.rate is not None:
        data["arrivals"] = (data.get("arrivals") or {}) | {"rate": options.rate}
        data["arrivals"].pop("stages", None)
    return data


def _trace_flags(options: argparse.Namespace) -> dict[str, Any]:
    flags = {key: getattr(options, key) for key in _TRACE_KEYS if getattr(options, key, None) is not None}
    if options.trace_format is not None:
        flags["format"] = options.trace_format
    if options.columns:
        flags["columns"] = dict(_pair(text) for text in options.columns)
    if options.skip_bad_rows:
        flags["skip_bad_rows"] = True
    for key in ("rate", "duration"):
        if getattr(options, key, None) is not None:
            flags[key] = getattr(options, key)
    return flags


def trace_of(options: argparse.Namespace, file: Path) -> "TraceSpec":
    """A trace, with the flags that are about traces."""
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


def _pair(text: str) -> tuple[str, str]:
    key, equals, column = text.partition("=")
    if not equals or not key or not column:
        raise UserError(f"{text!r} is not KEY=COLUMN", where="--columns", remedy="E.g. --columns prompt_tokens=in")
    return key.strip(), column.strip()
