"""From a spec and a seed to the rows of a plan, and to its file and back.

    times (arrivals, a trace)  x  requests (lengths, a trace)  ->  fitted to the context  ->  table, hashes

Deterministic in (spec, seed) on every machine. What the prompts hold is made later, from each row's
`content_seed` and `prefix_blocks` (`workloads.prompts`).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from workloads.arrivals.spec import build
from workloads.columns import DEFAULT, Columns, stateless, to_table
from workloads.context import blocks_within_prompt, fitted, scaled
from workloads.errors import UserError
from workloads.hashing import canonical_hash, file_digest, plan_hash
from workloads.lengths import Numbers, parse, whole
from workloads.schema import PLAN_SCHEMA
from workloads.spec import ArrivalSpec, WorkloadSpec
from workloads.streams import Field, Stream
from workloads.traces import replay

MOST_ROWS: Final = 50_000_000
BLOCK_TOKENS: Final = 512
_CLOSED_LEAST, _CLOSED_MOST = 4096, 1 << 18


@dataclass(frozen=True)
class Plan:
    """What a run is to send.

    `block_tokens` is the length of a prefix block; `notices` are for the person (what was clipped, sorted,
    skipped). In a closed loop the table is the beginning of an endless sequence, see `closed_rows`.
    """

    table: pa.Table
    plan_hash: str
    workload_hash: str
    loop: Literal["open", "closed"]
    notices: tuple[str, ...] = ()
    block_tokens: int = BLOCK_TOKENS


def make_plan(spec: WorkloadSpec, seed: int) -> Plan:
    """The plan of a workload.

    Open loop: what arrives in [0, warmup) is warm-up, then follows the measured part, for `duration` or
    until `requests` (whichever ends first). Closed loop: `requests` rows, or a long beginning of the endless
    sequence; phases are the clock's.

    Raises:
        UserError: a trace that can't be read, an empty plan, too many rows, or lengths beyond the context.
    """
    if spec.loop == "closed":
        table, notices = _closed_table(spec, seed)
    else:
        table, notices = _open_table(spec, seed)
    return Plan(table, plan_hash(table), workload_hash(spec), spec.loop, tuple(notices))


def closed_rows(spec: WorkloadSpec, seed: int, start: int, count: int) -> pa.Table:
    """Rows [start, start + count) of a closed loop's endless sequence; any split gives the same rows."""
    columns, _ = _requests(spec, seed, start, count)
    return to_table(columns, (DEFAULT,), (DEFAULT,), 0, start)


def workload_hash(spec: WorkloadSpec) -> str:
    """A hash of the spec without its load (rate, users); a trace counts by its content, not by its name."""
    content: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    content.pop("users", None)
    content.get("arrivals", {}).pop("rate", None)
    if spec.trace is not None:
        content["trace"]["file"] = file_digest(spec.trace.file)
    return canonical_hash(content)


def write_plan(plan: Plan, path: Path) -> None:
    """The plan as Parquet, with its hashes and block length in the file's metadata."""
    from pyarrow import parquet

    metadata = {
        "tailgate.plan_hash": plan.plan_hash,
        "tailgate.workload_hash": plan.workload_hash,
        "tailgate.loop": plan.loop,
        "tailgate.block_tokens": str(plan.block_tokens),
    }
    parquet.write_table(plan.table.replace_schema_metadata(metadata), path, compression="zstd")


def read_plan(path: Path) -> pa.Table:
    """The rows of a plan file, in the plan's schema.

    Raises:
        UserError: no such file, not Parquet, or not a plan.
    """
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        return table.select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA)
    except (OSError, KeyError, ValueError) as error:  # pa.ArrowInvalid is a ValueError
        raise UserError(f"not a plan: {str(error).splitlines()[0]}", where=str(path)) from error


def _open_table(spec: WorkloadSpec, seed: int) -> tuple[pa.Table, list[str]]:
    warmup_ns = round(spec.warmup * 1e9)
    if spec.arrivals is None:
        columns, notices = _requests(spec, seed, 0, None)
        columns = columns.take(_wanted(spec, columns.at_ns))
    else:
        at_ns = _arrival_times(spec, spec.arrivals, seed)
        columns, notices = _requests(spec, seed, 0, len(at_ns))
        columns = columns.with_(at_ns=at_ns)
    if not len(columns):
        raise UserError("the plan is empty: nothing arrives in the time given", where="workload", remedy="Run longer")
    columns, more = _in_context(spec, columns)
    return to_table(columns, (DEFAULT,), (DEFAULT,), warmup_ns), notices + more


def _closed_table(spec: WorkloadSpec, seed: int) -> tuple[pa.Table, list[str]]:
    if spec.requests is not None:
        count = spec.requests
    else:
        # Two requests per user and second are more than most servers answer; the rest is closed_rows' to give.
        wanted = int((spec.users or 1) * (spec.warmup + (spec.duration or 0.0)) * 2)
        count = min(max(wanted, _CLOSED_LEAST), _CLOSED_MOST)
    _refuse_too_many(count)
    columns, notices = _requests(spec, seed, 0, count)
    return to_table(columns, (DEFAULT,), (DEFAULT,), 0), notices


def _requests(spec: WorkloadSpec, seed: int, start: int, count: int | None) -> tuple[Columns, list[str]]:
    """Requests [start, start + count) of the endless sequence; count None: a trace, once, with its times."""
    notices: list[str] = []
    if spec.trace is not None:
        recorded, notices = replay.load(spec.trace)
        ordinals = np.arange(start, start + (len(recorded) if count is None else count))
        columns = recorded if count is None else recorded.take(ordinals % len(recorded))
        if count is not None:
            columns = columns.with_(session=ordinals, at_ns=stateless(len(ordinals)).at_ns)
    else:
        if count is None or spec.prompt_tokens is None or spec.output_tokens is None:
            raise ValueError("a workload without a trace needs lengths and a count")
        ordinals = np.arange(start, start + count)
        prompt, output = (
            _lengths(parse(law), Field(seed, name), ordinals)
            for name, law in (("prompt", spec.prompt_tokens), ("output", spec.output_tokens))
        )
        columns = stateless(count, session=ordinals, prompt_tokens=prompt, output_tokens=output)
    columns = columns.with_(content_seed=Field(seed, "content").u64(ordinals))
    return scaled(columns, spec.length_scale), notices


def _lengths(law: Numbers, field: Field, ordinals: Any) -> Any:
    return whole(law.quantile(field.uniform(ordinals)))


def _in_context(spec: WorkloadSpec, columns: Columns) -> tuple[Columns, list[str]]:
    notices: list[str] = []
    if spec.max_context is not None:
        columns, notices = fitted(columns, spec.max_context, spec.over_context)
    return blocks_within_prompt(columns, BLOCK_TOKENS), notices


def _arrival_times(spec: WorkloadSpec, arrivals: ArrivalSpec, seed: int) -> Any:
    rate = arrivals.mean_rate()
    if rate is None:
        raise UserError("the rate is missing (write e.g. 12/s)", where="workload.arrivals.rate")
    measured = spec.duration if spec.duration is not None else np.inf
    if spec.requests is not None:
        measured = min(measured, spec.requests / rate)
    span = spec.warmup + measured
    _refuse_too_many(int(span * rate))
    process, streams = build(arrivals), partial(Stream, seed, "arrivals")
    until = span if spec.requests is None else span * 1.05 + 60.0 / rate
    while True:
        at_ns = process.times_ns(streams, until, span)
        chosen = at_ns[_wanted(spec, at_ns)]
        enough = spec.requests is None or int((chosen >= round(spec.warmup * 1e9)).sum()) >= spec.requests
        over = spec.duration is not None and until >= spec.warmup + spec.duration
        if enough or over:
            return chosen
        until *= 1.5


def _wanted(spec: WorkloadSpec, at_ns: Any) -> Any:
    """A mask of the (ascending) times that belong to the run: warm-up, then duration or requests."""
    warmup_ns = round(spec.warmup * 1e9)
    keep = np.ones(len(at_ns), bool)
    if spec.duration is not None:
        keep &= at_ns < warmup_ns + round(spec.duration * 1e9)
    if spec.requests is not None:
        keep[int(np.searchsorted(at_ns, warmup_ns)) + spec.requests :] = False
    return keep


def _refuse_too_many(count: int) -> None:
    if count > MOST_ROWS:
        raise UserError(
            f"the plan would have {count:,} requests, more than {MOST_ROWS:,}",
            where="workload",
            remedy="Run shorter or at a lower rate, or split the run",
        )
