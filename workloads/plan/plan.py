"""From a spec and a seed to the rows of a plan, and to its file and back.

    open loop    starts (arrivals, or a trace) -> their requests  ┐
    closed loop  an endless sequence of sessions  -> a part of it ┴-> fitted to the context -> blocks -> table, hashes

Deterministic in (spec, seed) on every machine. What the prompts hold is made later, from each row's
`content_seed` and `prefix_blocks` (`workloads.prompts.prompts`).
"""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tailgate.workloads.arrivals.spec import build
from tailgate.workloads.common.arrays import Mask
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.file_digest import file_digest
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.context_limit import LengthLimit, limit_lengths, scaled_block
from tailgate.workloads.plan.prefixes import block_lists
from tailgate.workloads.plan.request_classes import classes_of
from tailgate.workloads.plan.sequence import RequestSequence, TraceSequence, names_of, sequence_of
from tailgate.workloads.plan.session_starts import SessionGroup, beginnings, groups_of, notices_of, span_s, started
from tailgate.workloads.sampling.random_streams import RandomStream
from tailgate.workloads.table.columns import NO_TIME, PLAN_SCHEMA, Columns, check_size, last_timed, to_table
from tailgate.workloads.table.hashing import canonical_hash, plan_hash
from tailgate.workloads.traces.detect import with_format

_CLOSED_LEAST, _CLOSED_MOST = 4096, 1 << 18


@dataclass(frozen=True)
class Plan:
    """What a run is to send.

    `block_tokens` is the length of a prefix block; `span_s` how long requests arrive, warm-up included (0 in a closed
    loop); `notices` tell the person what was clipped, sorted or skipped. In a closed loop the table is the beginning of
    an endless sequence, see `closed_rows`.
    """

    table: pa.Table
    plan_hash: str
    workload_hash: str
    loop: Literal["open", "closed"]
    notices: tuple[str, ...] = ()
    block_tokens: int = 64
    span_s: float = 0.0


def make_plan(spec: WorkloadSpec, seed: int) -> Plan:
    """The plan of a resolved workload.

    Open loop: requests that start in [0, warmup) are warm-up; the measured part follows, for `duration` or until
    `requests` (whichever ends first). Later turns that can't start before the end even if every answer came at once are
    left out. Closed loop: `requests` rows, or a long beginning of the endless sequence; the clock decides the phases.
    """
    spec, span = spec.resolved(Path()), 0.0  # a closed loop ends by the clock
    if spec.locustfile is not None:
        # The person's own code decides: the requests it made become the plan when the run is over.
        notices: list[str] = []
        table, block_tokens = PLAN_SCHEMA.empty_table(), spec.block_tokens
    elif spec.loop == "closed":
        table, notices, block_tokens = _closed_table(spec, seed)
    else:
        bounded = _bounded(spec, seed)
        table, notices, block_tokens = _open_table(bounded, seed)
        span = _span_s(bounded, table)
    hashes = plan_hash(table), workload_hash(spec)
    return Plan(table, *hashes, spec.loop, tuple(notices), block_tokens, span)


def open_columns(spec: WorkloadSpec, seed: int) -> Columns:
    """An open loop's rows as in `make_plan`, for a simulation of many hours: no table, no hash, no prefix blocks.

    ValueError for a closed loop, whose rows have no times, and for a locustfile, which has no rows.
    """
    spec = spec.resolved(Path())
    if spec.loop == "closed" or spec.locustfile is not None:
        raise ValueError("only an open loop has times")
    bounded = _bounded(spec, seed)
    if bounded.trace is not None:
        return _trace_columns(bounded, seed)[0]
    return _by_clock(_drawn(bounded, groups_of(bounded, classes_of(bounded)), seed)[0])


def closed_rows(spec: WorkloadSpec, seed: int, start: int, count: int) -> pa.Table:
    """Rows [start, start + count) of a closed loop's endless sequence; any split gives the same rows."""
    return ClosedRows(spec, seed)(start, count)


class ClosedRows:
    """`closed_rows` for callers that ask repeatedly; a trace is read at the first call."""

    def __init__(self, spec: WorkloadSpec, seed: int) -> None:
        self._spec, self._seed = spec, seed

    @cached_property
    def _sequence(self) -> RequestSequence:
        return sequence_of(self._spec.resolved(Path()), self._seed)

    def __call__(self, start: int, count: int) -> pa.Table:
        sequence = self._sequence
        return to_table(sequence.rows(start, count), *sequence.names, warmup_ns=0, first_index=start)


def workload_hash(spec: WorkloadSpec) -> str:
    """A hash of the spec without its load (rate, users, stages); a trace counts by its content, not by its name."""
    if spec.trace is not None:
        spec = spec.model_copy(update={"trace": with_format(spec.trace)})
    content: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    for key in ("users", "stages", "based_on"):
        content.pop(key, None)
    for part in (content, *content["classes"].values()):
        for key in ("rate", "stages"):
            (part.get("arrivals") or {}).pop(key, None)
    if spec.trace is not None:
        for key in ("rate", "rate_by", "speed"):
            content["trace"].pop(key, None)
        content["trace"].setdefault("time_unit", "s")  # left out, it is the same workload
        content["trace"]["file"] = file_digest(spec.trace.file)
    if spec.content.file is not None:
        content["content"]["file"] = file_digest(spec.content.file)
    if spec.locustfile is not None:
        content["locustfile"] = file_digest(spec.locustfile)
    return canonical_hash(content)


def write_plan(plan: Plan, path: Path) -> None:
    """The plan as Parquet, with its hashes and block length in the file's metadata; whole or not at all."""
    from pyarrow import parquet

    metadata = {
        "tailgate.plan_hash": plan.plan_hash,
        "tailgate.workload_hash": plan.workload_hash,
        "tailgate.loop": plan.loop,
        "tailgate.block_tokens": str(plan.block_tokens),
    }
    draft = path.with_name(f".{path.name}.tmp")
    try:
        parquet.write_table(plan.table.replace_schema_metadata(metadata), draft, compression="zstd")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"can't be written: {error.strerror or error}", where=str(path)) from error


def read_plan(path: Path) -> pa.Table:
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        return table.select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA)
    except (OSError, KeyError, ValueError) as error:  # pa.ArrowInvalid is a ValueError
        raise UserError(f"not a plan: {str(error).splitlines()[0]}", where=str(path)) from error


def _bounded(spec: WorkloadSpec, seed: int) -> WorkloadSpec:
    """A trace that comes at other times comes once, where nothing else ends the run."""
    if spec.trace is None or spec.arrivals is None or spec.measured_s() is not None or spec.requests is not None:
        return spec
    return spec.model_copy(update={"requests": len(TraceSequence(spec, seed))})


def _span_s(spec: WorkloadSpec, table: pa.Table) -> float:
    """The span asked for, or a mean gap behind the last arrival where requests or the trace end earlier."""
    times_ns = table["at_ns"].drop_null()
    last = float(pc.max(times_ns).as_py() or 0) / 1e9
    by_number = last + _mean_gap_s(spec, last, len(times_ns))
    asked = spec.measured_s()
    trace = spec.trace
    if asked is None and trace is not None and trace.duration is not None:
        # Brought to a rate by its speed, a slice ends where its last request does.
        hastened = trace.rate is not None and trace.rate_by == "speed"
        asked = None if hastened else trace.duration / trace.speed - spec.warmup
    if spec.requests is not None and pc.sum(pc.equal(table["phase"], "measure")).as_py() >= spec.requests:
        return by_number
    return by_number if asked is None else max(spec.warmup + asked, last + 1e-9)


def _mean_gap_s(spec: WorkloadSpec, last_s: float, times: int) -> float:
    """The gap to add behind the last arrival: n arrivals span n gaps, or a short run would offer more than its rate."""
    rate = spec.arrivals.mean_rate() if spec.arrivals is not None and not spec.classes else None
    if rate:
        return 1 / rate
    return last_s / (times - 1) if times > 1 and last_s else 1.0


def _open_table(spec: WorkloadSpec, seed: int) -> tuple[pa.Table, list[str], int]:
    warmup_ns = round(spec.warmup * 1e9)
    if spec.trace is not None:
        columns, sequence = _trace_columns(spec, seed)
        return to_table(columns, *sequence.names, warmup_ns=warmup_ns), sequence.notices, sequence.block_tokens
    classes = classes_of(spec)
    groups = groups_of(spec, classes)
    columns, limit, notices = _drawn(spec, groups, seed)
    block_tokens = scaled_block(spec.block_tokens, limit.factor)
    blocks = block_lists(classes, tuple(group.name for group in groups), seed, columns, block_tokens, limit.factor)
    columns = _by_clock(columns.with_(prefix_blocks=blocks))
    return to_table(columns, *names_of(spec), warmup_ns=warmup_ns), notices, block_tokens


def _drawn(spec: WorkloadSpec, groups: list[SessionGroup], seed: int) -> tuple[Columns, LengthLimit, list[str]]:
    """The rows that arrive and what was done to their lengths, session by session; blocks are not made yet."""
    warmup_ns = round(spec.warmup * 1e9)
    span, until = _spans(spec, sum(group.rate for group in groups))
    end = _end_s(spec)
    while True:
        columns = started(spec, groups, seed, until, span)
        chosen = columns.take(_wanted(spec, columns, end))
        enough = (
            spec.requests is None or int((chosen.at_ns[last_timed(chosen.at_ns)] >= warmup_ns).sum()) >= spec.requests
        )
        if enough or (end is not None and until >= end):
            break
        until *= 1.5
    _refuse_empty(chosen)
    start_notices = notices_of(groups, seed, span)
    if (columns.turn > 0).any():
        last = float(chosen.at_ns.max()) / 1e9
        start_notices += beginnings(columns, spec.warmup, last if end is None or spec.requests is not None else end)
    columns, limit, notices = limit_lengths(chosen, spec.length_scale, spec.max_context, spec.over_context)
    return columns, limit, [*start_notices, *notices]


def _by_clock(columns: Columns) -> Columns:
    """Sessions by the clock in order of time; others stay session by session."""
    if (columns.turn > 0).any() and (columns.at_ns != NO_TIME).all():
        return columns.take(np.argsort(columns.at_ns, kind="stable"))
    return columns


def _trace_columns(spec: WorkloadSpec, seed: int) -> tuple[Columns, TraceSequence]:
    """A trace at its own times, or at those of the spec's arrivals."""
    sequence = TraceSequence(spec, seed)
    if spec.arrivals is None:
        columns = sequence.once()
    else:
        span, until = _spans(spec, spec.arrivals.mean_rate() or 0.0)
        times = build(spec.arrivals).times_ns(partial(RandomStream, seed, "arrivals", "shared"), until, span)
        columns = sequence.at_times(times)
    columns = columns.take(_wanted(spec, columns, _end_s(spec)))
    _refuse_empty(columns)
    return columns, sequence


def _spans(spec: WorkloadSpec, rate: float) -> tuple[float, float]:
    """Seconds of the run, and those to draw starts for, which are more where a number of requests ends it."""
    span = span_s(spec, rate)
    check_size(int(span * rate))
    return span, span if spec.requests is None else span * 1.05 + 60.0 / rate


def _end_s(spec: WorkloadSpec) -> float | None:
    measured = spec.measured_s()
    return None if measured is None else spec.warmup + measured


def _refuse_empty(columns: Columns) -> None:
    if not len(columns):
        raise UserError("the plan is empty: nothing arrives in the time given", where="workload", remedy="Run longer")


def _wanted(spec: WorkloadSpec, columns: Columns, end_s: float | None) -> Mask:
    """Which rows belong to the run: those of sessions that start before its end, up to `requests` measured ones.

    A later turn is left out when the pauses before it alone are longer than the time left.
    """
    anchor = last_timed(columns.at_ns)
    start_ns = columns.at_ns[anchor]
    keep = np.ones(len(columns), bool)
    if end_s is not None:
        pauses = np.cumsum(np.where(columns.at_ns == NO_TIME, columns.think_ns, 0))
        keep = start_ns + pauses - pauses[anchor] < round(end_s * 1e9)
    if spec.requests is not None:
        order = np.argsort(start_ns, kind="stable")
        measured = np.cumsum((keep & (start_ns >= round(spec.warmup * 1e9)))[order])
        keep[order] &= measured <= spec.requests
    return keep


def _closed_table(spec: WorkloadSpec, seed: int) -> tuple[pa.Table, list[str], int]:
    if spec.requests is not None:
        count = spec.requests
    else:
        # Two requests per user and second are more than most servers answer; `closed_rows` gives the rest.
        wanted = int(spec.most_users * (spec.warmup + (spec.measured_s() or 0.0)) * 2)
        count = min(max(wanted, _CLOSED_LEAST), _CLOSED_MOST)
    check_size(count)
    sequence = sequence_of(spec, seed)
    notices = [*sequence.notices, *sequence.check(count, endless=spec.requests is None)]
    return to_table(sequence.rows(0, count), *sequence.names, warmup_ns=0), notices, sequence.block_tokens
