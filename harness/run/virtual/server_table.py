"""The engine's series under vLLM's names, as scrapes of `/metrics` would have brought them."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tailgate.harness.engine.config import Resolved, as_dict
from tailgate.harness.engine.server.metrics import LATENCY_BUCKETS
from tailgate.harness.engine.virtual.fleet import Fleet
from tailgate.harness.engine.virtual.outcome import Ending
from tailgate.reports.rundir.telemetry import SERVER_SCHEMA
from tailgate.workloads.common.arrays import Floats, Ints, Mask

_FIRST_NS: Final = -100_000_000
_CONFIG: Final = "vllm:cache_config_info"
_REASONS: Final = {"length": (Ending.COMPLETE,), "stop": (), "abort": (Ending.ABANDONED, Ending.UNSERVED)}


def server(fleet: Fleet, resolved: Resolved, names: Sequence[str], stopped: Mask) -> Any:
    """One row a sample, of every replica: a table of SERVER_SCHEMA.

    Args:
        stopped: of `fleet.rows`, which complete answers ended before their limit.
    """
    tables = [
        pa.table([pa.array(t), *(pa.array([text] * len(t)) for text in (names[k], name, labels)), pa.array(values)],
                 schema=SERVER_SCHEMA)
        for k in range(len(names))
        for name, labels, t, values in _samples(fleet, resolved, k, stopped)
    ]  # fmt: skip
    return pa.concat_tables(tables) if tables else SERVER_SCHEMA.empty_table()


def _samples(fleet: Fleet, resolved: Resolved, number: int, stopped: Mask) -> Iterator[tuple[str, str, Ints, Floats]]:
    """(name, labels, times, values) of one replica."""
    recorder = fleet.series[number]
    series, rows = recorder.series(), fleet.rows
    # A first scrape before the load, when all was zero; the last one comes after the last answer.
    times, t_ns = series.t_s, np.append(_FIRST_NS, np.ceil(series.t_s * 1e9).astype(np.int64))
    base = {"engine": "0", "model_name": resolved.model_name}

    def of(name: str, values: Any, **labels: str) -> tuple[str, str, Ints, Floats]:
        first = 1.0 if name == _CONFIG else 0.0
        return name, json.dumps({**base, **labels}, sort_keys=True), t_ns, np.append(first, values).astype(np.float64)

    yield of("vllm:num_requests_running", series.running)
    yield of("vllm:num_requests_waiting", series.waiting)
    yield of("vllm:kv_cache_usage_perc", series.blocks_used / resolved.num_gpu_blocks)
    yield of("vllm:num_preemptions_total", series.preemptions)
    yield of("vllm:prompt_tokens_total", series.prompt_tokens)
    yield of("vllm:generation_tokens_total", series.generation_tokens)
    yield of("vllm:prefix_cache_queries_total", recorder.prefix_queries)
    yield of("vllm:prefix_cache_hits_total", recorder.prefix_hits)
    ending, mine, end_s = rows.count("ending"), rows.count("replica") == number + 1, rows.time("end_s")
    for reason, endings in _REASONS.items():
        ended = mine & (np.isin(ending, endings) & ~stopped if reason != "stop" else stopped)
        yield of("vllm:request_success_total", _so_far(end_s[ended], times), finished_reason=reason)
    rejected = end_s[mine & (ending == Ending.REJECTED)]
    yield of("vllm:admission_rejections_total", _so_far(rejected, times), reason="max_num_queued_reqs")
    yield from _latencies(fleet, mine & (ending == Ending.COMPLETE), times, of)
    config = {name: str(value) for name, value in as_dict(resolved)["cache_config"].items()}
    yield of(_CONFIG, np.ones(len(times)), **config)


def _latencies(fleet: Fleet, done: Mask, times: Floats, of: Any) -> Iterator[tuple[str, str, Ints, Floats]]:
    """Histograms of the complete requests' parts."""
    rows = fleet.rows
    arrival, scheduled, first, last = (
        rows.time(f"{name}_s")[done] for name in ("arrival", "scheduled", "first_token", "last_token")
    )
    parts = {
        "time_to_first_token": (first, first - arrival),
        "request_queue_time": (last, scheduled - arrival),
        "request_prefill_time": (last, first - scheduled),
        "request_decode_time": (last, last - first),
        "request_inference_time": (last, last - scheduled),
        "e2e_request_latency": (last, last - arrival),
    }
    for name, (when, values) in parts.items():
        order = np.argsort(when, kind="stable")
        seen = np.searchsorted(when[order], times, side="right")
        for bound in (*LATENCY_BUCKETS[name], np.inf):
            below = np.concatenate([[0], np.cumsum(values[order] <= bound)])
            edge = "+Inf" if np.isinf(bound) else str(float(bound))
            yield of(f"vllm:{name}_seconds_bucket", below[seen], le=edge)
        yield of(f"vllm:{name}_seconds_sum", np.concatenate([[0.0], np.cumsum(values[order])])[seen])
        yield of(f"vllm:{name}_seconds_count", seen)


def _so_far(when: Floats, times: Floats) -> Ints:
    return np.searchsorted(np.sort(when), times, side="right")
