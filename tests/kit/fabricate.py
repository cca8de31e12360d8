"""Run directories with known truth: every figure of them can be worked out by hand.

`Row` is one request as it happened; `fabricate` writes the plan, the spool and the manifest of a run that
consisted of them, with an injector whose books agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tailgate.loadgen.records import CLIENT_SCHEMA, SPOOL_SCHEMA, lag_histogram
from tailgate.reports.rundir.manifest import Manifest, TargetRecord
from tailgate.reports.rundir.telemetry import SERVER_SCHEMA
from tailgate.workloads.table.columns import PLAN_SCHEMA

MS = 1_000_000
S = 1_000_000_000


@dataclass(frozen=True)
class Row:
    """One request; times in ms, `at` from the run's start, the others from `at`."""

    at: float | None
    ttft: float | None = 100.0  # first token - sent
    gaps: Sequence[float] = ()
    late: float = 0.0  # dispatched - scheduled
    connect: float = 0.0  # sent - dispatched
    end_after: float = 0.0  # end - last token (or - sent without one)
    status: str = "ok"
    http_status: int | None = 200
    error: str | None = None
    prompt_tokens: int = 10
    output_tokens: int | None = None  # default: one per content arrival
    output_planned: int | None = None  # default: as many as came
    first_chunk_tokens: int | None = None
    phase: str = "measure"
    klass: str = "chat"
    tenant: str = "a"
    session: int | None = None
    turn: int = 0
    think: float = 0.0
    reported: bool = True
    endpoint: str = "http://127.0.0.1:8000"
    client_coalesced: int = 0
    first_token_coalesced: bool = False
    due: float | None = None  # run time of a later turn, which the plan doesn't know
    server_queue_ms: float | None = None
    hung_up: str | None = None
    cached_tokens: int | None = 0
    blocks: Sequence[int] = ()  # prefix blocks, of fabricate's `block_tokens`
    # Arrivals that one read could not tell apart: (first, count, after in ms after the first arrival, last is exact).
    censored: Sequence[tuple[int, int, float, bool]] = ()


def spool_rows(rows: Sequence[Row], closed: bool = False) -> list[dict[str, Any]]:
    found = []
    for index, row in enumerate(rows):
        if not row.reported:
            continue
        due = row.at if row.at is not None else row.due or 0.0
        sent = due + row.late + row.connect
        began = row.status != "not_sent"
        first = sent + row.ttft if began and row.ttft is not None else None
        last = first + sum(row.gaps) if first is not None else None
        end = (last if last is not None else sent) + row.end_after if began else None
        chunks = 1 + len(row.gaps) if first is not None else 0
        usage = row.status == "ok"
        found.append(
            {
                "index": index,
                "endpoint": row.endpoint,
                "injector": 0,
                "status": row.status,
                "http_status": row.http_status,
                "error": row.error,
                "request_id": f"r-{index}",
                "scheduled_ns": None if closed else _ns(due),
                "handed_over_ns": _ns(due) if closed else None,
                "dispatched_ns": _ns(due + row.late) if began else None,
                "connect_start_ns": _ns(due + row.late) if began and row.connect else None,
                "connected_ns": _ns(sent) if began and row.connect else None,
                "sent_ns": _ns(sent) if began else None,
                "first_token_ns": _ns(first),
                "first_answer_ns": _ns(first),
                "last_token_ns": _ns(last),
                "end_ns": _ns(end),
                "prompt_tokens": row.prompt_tokens if usage else None,
                "output_tokens": (row.output_tokens if row.output_tokens is not None else chunks) if usage else None,
                "cached_tokens": row.cached_tokens if usage else None,
                "chunks": chunks,
                "first_chunk_tokens": row.first_chunk_tokens,
                "finish_reason": "length" if usage else None,
                "client_coalesced": row.client_coalesced,
                "server_coalesced": 0,
                "first_token_coalesced": row.first_token_coalesced,
                "bytes_received": 100 * chunks,
                "server_queue_ms": row.server_queue_ms,
                "hung_up": row.hung_up,
                "arrivals_us": [round(1000 * t) for t in np.cumsum([0.0, *row.gaps])] if chunks else [],
                "censored": [
                    {"first": first, "count": count, "after_us": round(1000 * after), "last_exact": exact}
                    for first, count, after, exact in row.censored
                ],
            }
        )
    return found


def _ns(ms: float | None) -> int | None:
    return None if ms is None else round(ms * MS)


def client_rows(
    records: Sequence[Mapping[str, Any]], seconds: int, receive_lag_ns: int = 20_000
) -> list[dict[str, Any]]:
    """An injector whose books agree with its records, one row a second."""
    spans = [(r["dispatched_ns"], r["end_ns"]) for r in records if r["dispatched_ns"] is not None]
    lags = [r["dispatched_ns"] - (r["scheduled_ns"] or r["handed_over_ns"] or 0) for r in records if r["dispatched_ns"]]
    rows = []
    for second in range(seconds):
        low, high = second * S, (second + 1) * S
        inside = sum(max(0, min(end, high) - max(begin, low)) for begin, end in spans)
        rows.append(
            {
                "injector": 0,
                "t_ns": low,
                "dur_ns": S,
                "in_flight_ns": inside,
                "in_flight_max": len(spans),
                "dispatched": sum(low <= begin < high for begin, _ in spans),
                "finished": sum(low <= end < high for _, end in spans),
                "cpu_fraction": 0.25,
                "loop_max_ns": 100_000,
                "reads": 10,
                "bytes": 1000,
                "dispatch_lag": lag_histogram(np.array(lags if second == 0 else [], np.int64)),
                "receive_lag": lag_histogram(np.full(10, receive_lag_ns, np.int64)),
                "turnaround_lag": lag_histogram(np.array([], np.int64)),
                "clock_step_ns": 0,
                "clock_jump_ns": 0,
                "run_delay_ns": 0,
                "steal_ns": 0,
            }
        )
    return rows


def write_stream(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema, batch: int = 50) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for at in range(0, len(rows), batch):
            writer.write_batch(pa.RecordBatch.from_pylist(list(rows[at : at + batch]), schema))


def plan_rows(rows: Sequence[Row], closed: bool = False) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "at_ns": None if closed else _ns(row.at),
            "session": index if row.session is None else row.session,
            "turn": row.turn,
            "think_ns": _ns(row.think),
            "class": row.klass,
            "tenant": row.tenant,
            "priority": 0,
            "prompt_tokens": row.prompt_tokens,
            "output_tokens": row.output_planned or max(1 + len(row.gaps), row.output_tokens or 0),
            "prefix_blocks": list(row.blocks),
            "content_seed": index,
            "phase": row.phase,
        }
        for index, row in enumerate(rows)
    ]


def fabricate(
    run_dir: Path,
    rows: Sequence[Row],
    *,
    seconds: float = 10.0,
    warmup: float = 0.0,
    drain: float = 60.0,
    client: Sequence[Mapping[str, Any]] | None = None,
    server: Sequence[tuple[float, str, str, float]] = (),
    slo: Mapping[str, Any] | Sequence[str] | None = None,
    block_tokens: int = 16,
    jump_ms: float = 0.0,
    **manifest: Any,
) -> Path:
    """Write a run that measured for `seconds` after a `warmup`; returns `run_dir`, not collected yet.

    `server` are (seconds, name, labels, value) samples. `jump_ms`: the wall clock stepped by that, and back, which
    voids the run whatever it shows.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    closed = manifest.get("loop") == "closed"
    records = spool_rows(rows, closed)
    plan = pa.Table.from_pylist(plan_rows(rows, closed), PLAN_SCHEMA)
    plan = plan.replace_schema_metadata({"tailgate.block_tokens": str(block_tokens)})
    pq.write_table(plan, run_dir / "plan.parquet")
    write_stream(run_dir / "spool" / "injector-0.arrows", records, SPOOL_SCHEMA)
    length = int(warmup + seconds + drain)
    books = client_rows(records, length) if client is None else list(client)
    if jump_ms:
        books[0] = {**books[0], "clock_jump_ns": round(jump_ms * MS)}
    write_stream(run_dir / "spool" / "client-0.arrows", books, CLIENT_SCHEMA)
    if server:
        samples = [
            {"t_ns": round(t * S), "endpoint": "http://127.0.0.1:8000", "name": n, "labels": labels, "value": value}
            for t, n, labels, value in server
        ]
        pq.write_table(pa.Table.from_pylist(samples, SERVER_SCHEMA), run_dir / "server.parquet")
    defaults: dict[str, Any] = {
        "run": run_dir.name,
        "state": "complete",
        "started_at": "2026-01-02T03:04:05Z",
        "spec": {"slo": slo} if slo else {},
        "warmup_ns": round(warmup * S),
        "measure_start_ns": round(warmup * S),
        "measure_end_ns": round((warmup + seconds) * S),
        "drain_end_ns": round((warmup + seconds + drain) * S),
        "target": TargetRecord(kind="url", urls=["http://127.0.0.1:8000"], model="tiny", endpoint="completions"),
    }
    Manifest(**(defaults | manifest)).save(run_dir)
    return run_dir
