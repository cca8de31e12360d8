"""A simulation's requests as a load generator that is never late would have recorded them."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tailgate.harness.engine.virtual.fleet import Fleet
from tailgate.harness.engine.virtual.outcome import Ending
from tailgate.harness.engine.virtual.plan_load import ClosedPlan, OpenPlan
from tailgate.loadgen.records import (
    ARRIVAL_COLUMNS,
    ARRIVALS_SCHEMA,
    CLIENT_SCHEMA,
    SPOOL_SCHEMA,
    HungUp,
    Status,
    lag_histogram,
)
from tailgate.workloads.common.arrays import Floats, Ints, Mask

REPORTED_SCHEMA: Final = pa.schema([field for field in SPOOL_SCHEMA if field.name not in ARRIVAL_COLUMNS])
_SECOND_NS: Final = 1_000_000_000
_AT_ONCE: Final = 4096  # requests whose tokens are looked up together

# How each ending is recorded: status, HTTP status, and what was said.
_AS_RECORDED: Final[dict[Ending, tuple[Status, int | None, str | None]]] = {
    Ending.COMPLETE: (Status.OK, 200, None),
    Ending.ABANDONED: (Status.CANCELLED, 200, "hung up as planned"),
    Ending.REJECTED: (Status.REJECTED, 503, "The engine is busy: its queue is full. Try again later."),
    Ending.TOO_LONG: (Status.HTTP_ERROR, 400, "prompt and answer are longer than the model's context"),
    Ending.LOST: (Status.RESET, 200, "its replica died"),
    Ending.UNSERVED: (Status.TIMEOUT, 200, "still in flight when the drain ended"),
    Ending.UNREACHABLE: (Status.CONNECT_ERROR, None, "no replica was up"),
}
_TIMED_OUT: Final = (Status.TIMEOUT, 200, "no answer within the request's timeout")


def reported(fleet: Fleet, load: OpenPlan | ClosedPlan, names: Sequence[str], timeout_ns: int | None) -> Any:
    """What was sent, one row a request, sorted by index: a table of `REPORTED_SCHEMA`."""
    rows, plan = fleet.rows, load.rows
    position = rows.count("row")
    order = np.argsort(position, kind="stable")
    position = position[order]
    due = np.array([load.due_ns[row] for row in position.tolist()], np.int64)
    ending, replica, generated = (rows.count(name)[order] for name in ("ending", "replica", "generated"))
    end = _ns(rows.time("end_s")[order])
    end = np.maximum(end, due)  # at once, if at all before: a time is rounded to whole nanoseconds
    first, last, scheduled = (rows.time(f"{name}_s")[order] for name in ("first_token", "last_token", "scheduled"))
    kinds = [_AS_RECORDED[Ending(code)] for code in ending.tolist()]
    if timeout_ns is not None:
        for row in np.flatnonzero((ending == Ending.ABANDONED) & (end - due >= timeout_ns - 1)).tolist():
            kinds[row] = _TIMED_OUT
    ok, begun, sent = ending == Ending.COMPLETE, generated > 0, ending != Ending.UNREACHABLE
    answered = sent & ~np.isin(ending, (Ending.REJECTED, Ending.TOO_LONG))
    prompt = np.array(plan.column("prompt_tokens"), np.int64)[position]
    details = plan.resolved.settings
    cached = ok & details.enable_prompt_tokens_details & details.enable_prefix_caching
    timed = ok & details.enable_per_request_metrics
    zeros = np.zeros(len(position), np.int64)
    open_loop = isinstance(load, OpenPlan)
    limit = np.array(plan.column("output_tokens"), np.int64)[position]
    columns: dict[str, Any] = {
        "index": np.array(plan.column("index"), np.int64)[position],
        "endpoint": pa.array([names[max(number, 1) - 1] for number in replica.tolist()]),
        "injector": zeros,
        "status": pa.array([str(kind[0]) for kind in kinds], pa.string()),
        "http_status": pa.array([kind[1] for kind in kinds], pa.int32()),
        "error": pa.array([kind[2] for kind in kinds], pa.string()),
        "scheduled_ns": due if open_loop else None,
        "handed_over_ns": None if open_loop else due,
        "dispatched_ns": due,
        "sent_ns": _where(sent, due),
        "headers_ns": _where(answered, due),
        "first_token_ns": _where(begun, np.maximum(_ns(first), due)),
        "first_answer_ns": _where(begun, np.maximum(_ns(first), due)),
        "last_token_ns": _where(begun, np.maximum(_ns(last), due)),
        "end_ns": end,
        "prompt_tokens": _where(ok, prompt),
        "cached_tokens": _where(cached, rows.count("cached_tokens")[order]),
        "output_tokens": _where(ok, generated),
        "chunks": generated,
        "first_chunk_tokens": _where(ok, np.ones(len(position), np.int64)),
        "multi_token_chunks": _where(ok, zeros),
        "finish_reason": pa.array(np.where(generated < limit, "stop", "length"), mask=~ok),
        "receive_lag_max_ns": _where(begun, zeros),
        "client_coalesced": zeros,
        "server_coalesced": zeros,
        "first_token_coalesced": np.zeros(len(position), np.bool_),
        "connection_reused": pa.array(np.ones(len(position), np.bool_), mask=~sent),
        "bytes_received": zeros,
        "server_queue_ms": _where(timed, np.maximum(scheduled * 1e9 - due, 0) / 1e6),
        "server_ttft_ms": _where(timed, np.maximum(first * 1e9 - due, 0) / 1e6),
        "hung_up": pa.array(
            [str(HungUp.PATIENCE) if kind[0] is Status.CANCELLED else None for kind in kinds], pa.string()
        ),
    }
    arrays = [
        pa.nulls(len(position), field.type) if (values := columns.get(field.name)) is None else _cast(values, field)
        for field in REPORTED_SCHEMA
    ]
    return pa.table(arrays, schema=REPORTED_SCHEMA)


def arrivals(fleet: Fleet, load: OpenPlan | ClosedPlan) -> Any:
    """The tokens' arrivals: a table of `ARRIVALS_SCHEMA`. Every one of them is exact."""
    rows = fleet.rows
    position, lengths = rows.count("row"), rows.count("generated")
    order = np.argsort(position, kind="stable")
    order = order[lengths[order] > 0]
    index = np.array(load.rows.column("index"), np.int64)[position]
    parts = [
        _arrivals(index[some], lengths[some], rows.token_times(some.tolist()))
        for some in np.split(order, np.arange(_AT_ONCE, len(order), _AT_ONCE))
    ]
    return pa.concat_tables(parts)


def _arrivals(index: Ints, lengths: Ints, token_s: Floats) -> Any:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    at_ns = _ns(token_s)
    after_us = (at_ns - np.repeat(at_ns[offsets[:-1]], lengths)) // 1000
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(after_us.astype(np.uint32)))
    nothing = pa.array([[]] * len(index), ARRIVALS_SCHEMA.field("censored").type)
    return pa.table([pa.array(index), lists, nothing], schema=ARRIVALS_SCHEMA)


def client(requests: Any, returns_ns: Sequence[int], end_ns: int) -> Any:
    """The load generator's record of itself, second by second: what was in flight. Late for nothing.

    `returns_ns`, rising: when users of a closed loop came back for another request.
    """
    begin, end = (requests[name].to_numpy().astype(np.float64) for name in ("dispatched_ns", "end_ns"))
    edges = np.arange(0, end_ns + _SECOND_NS, _SECOND_NS)
    edges = np.append(edges[edges < end_ns], end_ns) if end_ns else np.array([0, 0])
    started, over = np.sort(begin[np.isfinite(begin)]), np.sort(end[np.isfinite(end)])
    area = _area(started, edges) - _area(over, edges)
    dispatched = np.diff(np.searchsorted(started, edges))
    # The last interval has the run's end in it.
    sides = np.append(np.searchsorted(over, edges[:-1]), len(over))
    n = len(edges) - 1
    zeros, no_lags = np.zeros(n, np.int64), lag_histogram(np.zeros(0, np.int64))
    back = np.diff(np.searchsorted(np.array(returns_ns, np.int64), edges))
    columns: dict[str, Any] = dict.fromkeys(CLIENT_SCHEMA.names, zeros) | {
        "t_ns": edges[:-1],
        "dur_ns": np.diff(edges),
        "in_flight_ns": np.rint(area).astype(np.int64),
        "in_flight_max": _most(started, over, edges),
        "dispatched": dispatched,
        "finished": np.diff(sides),
        "dispatch_lag": pa.array([_on_time(count) for count in dispatched.tolist()]),
        "receive_lag": pa.array([no_lags] * n),
        "turnaround_lag": pa.array([_on_time(count) for count in back.tolist()]),
        "run_delay_ns": None,
        "steal_ns": None,
    }
    arrays = [
        pa.nulls(n, field.type) if columns[field.name] is None else _cast(columns[field.name], field)
        for field in CLIENT_SCHEMA
    ]
    return pa.table(arrays, schema=CLIENT_SCHEMA)


def _on_time(count: int) -> Any:
    """A histogram of so many lags of nothing."""
    lags = lag_histogram(np.zeros(1, np.int64))
    lags[0] = count
    return lags


def _area(events_ns: Floats, edges_ns: Ints) -> Floats:
    summed = np.concatenate([[0.0], np.cumsum(events_ns)])
    before = np.searchsorted(events_ns, edges_ns)
    return np.diff(before * edges_ns - summed[before])


def _most(started: Floats, over: Floats, edges: Ints) -> Ints:
    """The most that were in flight at once in each interval: at its begin, or just after one of its starts."""
    there = np.arange(1, len(started) + 1) - np.searchsorted(over, started, side="right")
    most = np.searchsorted(started, edges[:-1]) - np.searchsorted(over, edges[:-1])
    inside = np.searchsorted(edges, started, side="right") - 1
    np.maximum.at(most, np.minimum(inside, len(most) - 1), there)
    return np.asarray(most, np.int64)


def _ns(seconds: Floats) -> Ints:
    return np.rint(np.nan_to_num(seconds) * 1e9).astype(np.int64)


def _where(mask: Mask, values: Any) -> Any:
    return pa.array(np.where(mask, values, 0), mask=~mask)


def _cast(values: Any, field: pa.Field) -> Any:
    return (values if isinstance(values, pa.Array) else pa.array(values)).cast(field.type)
