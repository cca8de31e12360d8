"""What the load generator writes down: one record per request, and one row per injector and second.

The schemas are the contract with `reports`. All `*_ns` times are integer nanoseconds from the run's
start, on CLOCK_REALTIME of the machine that sent the request; null where the event never happened.
"""

from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class Status(StrEnum):
    """How a planned request ended. Every planned row ends in exactly one of these."""

    OK = "ok"
    REJECTED = "rejected"  # 429 or 503: the server shed load; as HTTP status, or as an error event before any token
    HTTP_ERROR = "http_error"  # any other status than 200
    CONNECT_ERROR = "connect_error"  # refused, unreachable, TLS failed
    CLIENT_ERROR = "client_error"  # this machine had no descriptor, local port or memory for it: the client's fault
    TIMEOUT = "timeout"  # its own deadline, or still in flight when the drain ended
    RESET = "reset"  # the connection was reset before or inside the answer
    TRUNCATED = "truncated"  # the answer ended early: no [DONE], no usage, or a short body
    SERVER_ERROR = "server_error"  # any other error event inside a stream that began with 200
    BAD_RESPONSE = "bad_response"  # not HTTP, not SSE, not JSON, or not this API
    CANCELLED = "cancelled"  # we hung up: planned abandonment, or the run was stopped (see `hung_up`)
    NOT_SENT = "not_sent"  # planned, but the run ended before its time or before it could be sent
    LOST = "lost"  # handed to an injector that never reported it


class HungUp(StrEnum):
    """Why we ended a request before its answer had: the user's patience is load, a stopped run is no one's fault."""

    PATIENCE = "patience"  # planned: the user had waited long enough
    STOPPED = "stopped"  # the run ended early: what would have become of it, nobody knows


# In `output_tokens`: the server's usage names something that is no count of tokens (negative, 8.5, 2^63 - 1, "8").
NO_COUNT: Final = -1

# Content arrivals of one read whose own times are not known: `count` of them, from the `first` on (0 is the answer's
# first), came in order after `after_us` (microseconds after the answer's first arrival; negative for that one) and not
# after the last one's entry in `arrivals_us`, which is the read's stamp. With `last_exact` the last came then.
CENSORED: Final = np.dtype([("first", "<u4"), ("count", "<u4"), ("after_us", "<i4"), ("last_exact", "?")])
_CENSORED_TYPE: Final = pa.list_(
    pa.struct([("first", pa.uint32()), ("count", pa.uint32()), ("after_us", pa.int32()), ("last_exact", pa.bool_())])
)

# What an injector knows by itself; the rest of a request's columns come from the plan.
SPOOL_SCHEMA: Final = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("endpoint", pa.string()),  # base URL without credentials
        pa.field("injector", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("http_status", pa.int32()),
        pa.field("error", pa.string()),  # at most 500 characters, secrets removed
        pa.field("request_id", pa.string()),
        pa.field("scheduled_ns", pa.int64()),  # open loop only
        pa.field("dispatched_ns", pa.int64()),
        pa.field("handed_over_ns", pa.int64()),  # closed loop: when the user asked for it
        pa.field("connect_start_ns", pa.int64()),
        pa.field("connected_ns", pa.int64()),
        pa.field("sent_ns", pa.int64()),
        pa.field("headers_ns", pa.int64()),
        pa.field("first_token_ns", pa.int64()),
        pa.field("first_answer_ns", pa.int64()),  # first content that is not reasoning
        pa.field("last_token_ns", pa.int64()),
        pa.field("end_ns", pa.int64()),
        pa.field("prompt_tokens", pa.int64()),  # the server's usage
        pa.field("cached_tokens", pa.int64()),
        pa.field("output_tokens", pa.int64()),  # the server's usage, or NO_COUNT
        pa.field("chunks", pa.int32(), nullable=False),  # content arrivals
        pa.field("first_chunk_tokens", pa.int32()),  # null where the server does not say
        pa.field("multi_token_chunks", pa.int32()),  # null where the server does not say
        pa.field("finish_reason", pa.string()),
        pa.field("receive_lag_max_ns", pa.int64()),
        # Content arrivals that came in one read with others: because we read late (receive lag above
        # 1 ms: the client's fault), or although we did not (the server or a gateway sent them together).
        pa.field("client_coalesced", pa.int32(), nullable=False),
        pa.field("server_coalesced", pa.int32(), nullable=False),
        pa.field("first_token_coalesced", pa.bool_(), nullable=False),  # by the client
        pa.field("connection_reused", pa.bool_()),
        pa.field("bytes_received", pa.int64(), nullable=False),
        pa.field("server_queue_ms", pa.float64()),
        pa.field("server_ttft_ms", pa.float64()),
        pa.field("hung_up", pa.string()),  # why we did, if cancelled: a name of HungUp
        # Content arrivals in microseconds after the first (whose own entry is 0): the best estimates.
        pa.field("arrivals_us", pa.list_(pa.uint32())),
        pa.field("censored", _CENSORED_TYPE),  # those of them that are not exact; see CENSORED
    ]
)

# What users' own code asked for, one row per request: it becomes the plan of a run without one.
LOCUSTFILE_REQUEST_SCHEMA: Final = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("session", pa.int64(), nullable=False),  # a user
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("output_tokens", pa.int32()),  # as asked for; null where the user's code set no limit
    ]
)

# Answers that arrived well and that the user's own code found wrong.
LOCUSTFILE_VERDICT_SCHEMA: Final = pa.schema(
    [pa.field("index", pa.int64(), nullable=False), pa.field("error", pa.string(), nullable=False)]
)

_FROM_PLAN: Final = [
    pa.field("session", pa.int64(), nullable=False),
    pa.field("turn", pa.int32(), nullable=False),
    pa.field("class", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field("tenant", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field("phase", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field("prompt_tokens_planned", pa.int32(), nullable=False),
    pa.field("output_tokens_planned", pa.int32(), nullable=False),
]

# requests.parquet: one row per planned request, sent or not, sorted by index.
CENSORED_COLUMN: Final = "censored"
ARRIVAL_COLUMNS: Final = ("arrivals_us", CENSORED_COLUMN)
REQUESTS_SCHEMA: Final = pa.schema([*_FROM_PLAN, *(f for f in SPOOL_SCHEMA if f.name not in ARRIVAL_COLUMNS)])

# arrivals.parquet: only requests with at least one content arrival. Runs recorded before `censored` was kept lack it.
ARRIVALS_SCHEMA: Final = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("arrivals_us", pa.list_(pa.uint32()), nullable=False),
        pa.field("censored", _CENSORED_TYPE),
    ]
)

# client.parquet: the injector's measurement of itself, one row per injector and (about) second.
CLIENT_SCHEMA: Final = pa.schema(
    [
        pa.field("injector", pa.int32(), nullable=False),
        pa.field("t_ns", pa.int64(), nullable=False),  # start of the interval, run clock
        pa.field("dur_ns", pa.int64(), nullable=False),
        pa.field("in_flight_ns", pa.int64(), nullable=False),  # integral of the in-flight count over it
        pa.field("in_flight_max", pa.int32(), nullable=False),
        pa.field("dispatched", pa.int64(), nullable=False),
        pa.field("finished", pa.int64(), nullable=False),
        pa.field("cpu_fraction", pa.float64(), nullable=False),  # thread CPU / wall
        pa.field("loop_max_ns", pa.int64(), nullable=False),  # longest turn of the event loop
        pa.field("reads", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        # Counts per bucket of LAG_EDGES_NS.
        pa.field("dispatch_lag", pa.list_(pa.uint32()), nullable=False),
        pa.field("receive_lag", pa.list_(pa.uint32()), nullable=False),
        # Closed loop: how late users came back (dispatch request - end of the request before it - think time).
        pa.field("turnaround_lag", pa.list_(pa.uint32()), nullable=False),
        # (REALTIME - MONOTONIC) now, less the same at the run's start.
        pa.field("clock_step_ns", pa.int64(), nullable=False),
        # Its largest change between two looks, a tenth of a second apart: a step that was taken back shows here.
        pa.field("clock_jump_ns", pa.int64(), nullable=False),
        # How long the injector's thread waited for a core, and how long a hypervisor took cores, all of them together;
        # null where the kernel doesn't tell.
        pa.field("run_delay_ns", pa.int64()),
        pa.field("steal_ns", pa.int64()),
    ]
)

# Lag buckets: [0, 1 us), then 16 per octave up to about 134 s: a percentile read from them is within 4.5 %.
LAG_EDGES_NS: Final[npt.NDArray[np.int64]] = np.concatenate(
    [[0], np.rint(1000.0 * 2.0 ** (np.arange(27 * 16 + 1) / 16.0))]
).astype(np.int64)


def lag_histogram(lags_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Counts per bucket of LAG_EDGES_NS; shape (len(LAG_EDGES_NS),), the last bucket is open-ended.

    Negative lags (clock noise of less than a read) count as zero.
    """
    slots = np.searchsorted(LAG_EDGES_NS, lags_ns, side="right") - 1
    return np.bincount(np.maximum(slots, 0), minlength=len(LAG_EDGES_NS)).astype(np.uint32)
