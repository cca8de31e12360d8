"""The parts of `summary.json`: each from typed figures to plain JSON values.

What belongs into a summary and in which order is `reports.summary.summary`.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from tailgate.loadgen.records import Status
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.breakdown import Group
from tailgate.reports.metrics.in_flight import InFlight
from tailgate.reports.metrics.requests import Distribution
from tailgate.reports.metrics.requests import distribution as of_rows
from tailgate.reports.metrics.slo import Slo
from tailgate.reports.stats.order_statistics import PERCENTILES
from tailgate.reports.summary.objectives import Judged
from tailgate.reports.telemetry.client import busiest_second, client_column, lag_percentile
from tailgate.reports.telemetry.gpu import GpuView, whole_gpus
from tailgate.reports.validity.client import Check


def unit_of(metric: str) -> tuple[float, str]:
    """(factor, unit) to print a threshold's figures with."""
    if metric in ("errors", "attained"):
        return 100.0, " %"
    return (1.0, " /s") if metric.endswith("_per_s") or metric == "goodput" else (1.0, " ms")


def load(analysis: Analysis, flight: InFlight | None) -> dict[str, Any]:
    """Loop, rates, requests by status, requests in flight."""
    run = analysis.run
    seconds = run.duration_s
    codes, names = run.texts("status")
    counts = np.bincount(codes[run.measured], minlength=len(names))
    found = dict(zip(names, counts.tolist(), strict=True))
    in_order = {status.value: found[status.value] for status in Status if found.get(status.value)}
    offered = int(np.count_nonzero(analysis.offered))
    load: dict[str, Any] = {
        "loop": run.manifest.loop,
        "offered_rps": offered / seconds if seconds else None,
        "sent_rps": analysis.sent_rps,
        "duration_s": seconds,
        "requests": {"planned": int(counts.sum()), "ok": 0, **in_order},
        "all_phases": {"planned": len(run), "ok": int(np.count_nonzero(run.ok))},
    }
    if run.manifest.users:
        load["users"] = run.manifest.users  # time-weighted mean, and the largest number
    if flight is not None:
        load["in_flight"] = {"mean": flight.mean, "max": flight.most, "growth": flight.growth}
        load["overloaded"] = flight.overloaded
    return load


def distribution(found: Distribution) -> dict[str, Any]:
    """One distribution: percentiles with their intervals."""
    result: dict[str, Any] = {"n": found.n, "mean": number(found.mean), "min": number(found.least)}
    for one in found.quantiles:
        result[f"p{one.q:g}"] = number(one.value)
    result["max"] = number(found.most)
    result["mean_ci"] = [number(end) for end in found.mean_ci] if found.mean_ci else None
    for one in found.quantiles:
        result[f"p{one.q:g}_ci"] = None if one.value is None else [number(one.low), number(one.high)]
    result["n_eff"] = {f"p{one.q:g}": round(one.n_eff, 1) for one in found.quantiles}
    return result


def number(value: float | None) -> float | str | None:
    """A JSON number; "inf" for infinity, which JSON has no number for."""
    if value is None or math.isnan(value):
        return None
    return "inf" if math.isinf(value) else float(value)


def needs(found: dict[str, Distribution]) -> dict[str, dict[str, int]]:
    """For every percentile that is null: how many requests it needs."""
    return {
        name: short
        for name, one in found.items()
        if (short := {f"p{q:g}": one.at(q).needs for q in PERCENTILES if one.at(q).value is None})
    }


def check(check: Check) -> dict[str, Any]:
    """One validity check."""
    return {
        "name": check.name,
        "status": check.status,
        "value": number(check.value),
        "bound": number(check.bound),
        "unit": check.unit,
        "why": check.why,
        "remedy": check.remedy,
    }


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON values, NaN as null and infinity as "inf"; nothing as an empty mapping."""
    return {} if value is None else dict(jsonable(dataclasses.asdict(value)))


def jsonable(value: Any) -> Any:
    """Nested values as JSON has them: no NumPy numbers, NaN as null, infinity as "inf"."""
    match value:
        case dict():
            return {str(key): jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [jsonable(item) for item in value]
        case float():
            return number(value)
        case np.integer():
            return int(value)
        case str():
            return str(value)  # an enum's value
        case _:
            return value


def total_rate(analysis: Analysis) -> dict[str, float]:
    """Input and output tokens together."""
    rates = analysis.throughput
    return {} if rates is None else {"total_tokens_per_s": rates.total_tokens_per_s}


def group(one: Group) -> dict[str, Any]:
    """One group of a split."""
    latencies = {name: distribution(found) for name, found in one.latencies.items()}
    return {
        "name": one.name,
        "n": one.n,
        "ok": one.ok,
        "failed_share": one.failed_share,
        "attained": one.attained,
        "goodput_rps": one.goodput_rps,
        "output_tokens_per_s": one.output_tokens_per_s,
        **latencies,
        "failed_as_inf": {name: distribution(found) for name, found in one.failed_as_inf.items()},
        "itl": {f"p{q.q:g}": number(q.value) for q in one.itl}
        | {f"p{q.q:g}_ci": None if q.value is None else [number(q.low), number(q.high)] for q in one.itl},
        "needs": _needs(one),
        "stands_for": one.stands_for,
    }


def _needs(one: Group) -> dict[str, dict[str, int]]:
    """For every percentile of a group that is null: how many requests it needs."""
    figures = {name: found.quantiles for name, found in one.latencies.items()} | {"itl": one.itl}
    figures |= {f"{name}_failed_as_inf": found.quantiles for name, found in one.failed_as_inf.items()}
    short = {name: {f"p{q.q:g}": q.needs for q in qs if q.value is None} for name, qs in figures.items()}
    return {name: lacking for name, lacking in short.items() if lacking}


def gpus(views: list[GpuView]) -> dict[str, Any]:
    """All GPUs, and what concerns them together."""
    if not views:
        return {}
    slow = [view.slowdown_share for view in views if view.slowdown_share is not None]
    power = [view.power_w for view in views if view.power_w is not None]
    return {
        "count": len(whole_gpus(views)),
        "power_w": sum(power) if power else None,
        "slowdown_share_max": max(slow, default=None),
        "gpus": [plain(view) for view in views],
    }


def slo(analysis: Analysis, judged: list[Judged]) -> dict[str, Any]:
    """Attainment, goodput, each objective judged; empty without an SLO."""
    if not judged and not analysis.has_good:
        return {}
    seconds, offered = analysis.run.duration_s, int(np.count_nonzero(analysis.judged))
    good = int(np.count_nonzero(analysis.good))
    unknown = bool((analysis.judged & analysis.unknown).any())
    admitted = offered - int(np.count_nonzero(analysis.judged & analysis.run.is_text("status", "rejected")))
    return {
        "attained": good / offered if offered and not unknown else None,
        "attained_of_admitted": good / admitted if admitted and not unknown else None,
        "good": None if unknown else good,
        "goodput_rps": good / seconds if seconds and not unknown else None,
        "good_output_tokens_per_s": analysis.good_tokens_inside / seconds if seconds else None,
        "good_means": _conditions(analysis.slo),
        "good_means_by_class": {name: _conditions(slo) for name, slo in analysis.class_slos.items() if slo.good},
        "thresholds": [
            {
                "objective": f"{j.scope}: {j.threshold.text}" if j.scope else j.threshold.text,
                "result": j.result,
                "value": number(j.value),
                "lower_bound": number(j.below),
                "upper_bound": number(j.above),
                "limit": j.threshold.limit,
                "unit": unit_of(j.threshold.metric)[1].strip().replace("%", "fraction"),
                "why": j.why,
                "as_measured": j.as_measured,
            }
            for j in judged
        ],
    }


def _conditions(slo: Slo) -> list[str]:
    return [f"{c.metric} {c.op} {c.limit:g} ms" for c in slo.good]


def streaming(analysis: Analysis) -> dict[str, Any]:
    """How answers came over the wire, in the measure phase: chunks, and how many tokens and reads shared one."""
    run = analysis.run
    rows = run.measured & (run.column("chunks") > 0)
    chunks = run.column("chunks")[rows]
    several = run.column("multi_token_chunks")[rows]
    told = np.isfinite(several)
    total, of_told = float(chunks.sum()), float(chunks[told].sum())
    return {
        "arrivals": int(total),
        "multi_token_share": float(several[told].sum()) / of_told if of_told else None,
        "client_coalesced_share": float(run.column("client_coalesced")[rows].sum()) / total if total else None,
        "server_coalesced_share": float(run.column("server_coalesced")[rows].sum()) / total if total else None,
    }


def connections(analysis: Analysis) -> dict[str, Any]:
    """Connections that the measure phase's requests opened, and what their set-up took."""
    run = analysis.run
    ms = (run.column("connected_ns") - run.column("connect_start_ns")) / 1e6
    opened = run.measured & np.isfinite(ms)
    return {
        "sent": int(np.count_nonzero(run.measured & np.isfinite(run.column("sent_ns")))),
        "new": int(np.count_nonzero(opened)),
        "set_up_ms": distribution(of_rows(ms, opened, analysis.figures.order)),
    }


def errors(analysis: Analysis) -> dict[str, Any]:
    """Requests of the measure phase that did not end ok, by kind, each with an example."""
    run = analysis.run
    judged = int(np.count_nonzero(analysis.judged))
    failed = int(np.count_nonzero(analysis.failed))
    codes, names = run.texts("status")
    kinds = []
    for code, name in enumerate(names):
        places = np.flatnonzero(run.measured & (codes == code))
        if name == "ok" or not len(places):
            continue
        kinds.append({"status": name, "count": len(places), **_example(run.requests, places)})
    kinds.sort(key=lambda kind: -int(kind["count"]))
    return {"share": failed / judged if judged else None, "failed": failed, "kinds": kinds}


def _example(requests: Any, places: Any) -> dict[str, Any]:
    """The first of `places` that says something, and how often each HTTP status came."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = requests.take(pa.array(places)).select(["index", "request_id", "http_status", "error"])
    told = rows.filter(pc.is_valid(rows["error"])).slice(0, 1).to_pylist() or rows.slice(0, 1).to_pylist()
    codes = {str(v["values"]): v["counts"] for v in pc.value_counts(rows["http_status"]).to_pylist()}
    codes.pop("None", None)
    return {"example": told[0], "http_status": codes}


def client(analysis: Analysis) -> dict[str, Any]:
    """The injectors' own conduct."""
    run = analysis.run
    turns = client_column(run, "loop_max_ns")
    steps = client_column(run, "clock_step_ns")
    late = {f"p{q:g}" if q < 100 else "max": q for q in (50, 99, 100)}
    found = {
        "dispatch_lag_ms": lags(analysis.dispatch_lag_ms),
        "send_lag_ms": lags(analysis.send_lag_ms),
        "receive_lag_ms": {name: lag_percentile(run, "receive_lag", q) for name, q in late.items()},
        "cpu_fraction_max": busiest_second(run),
        "loop_max_ms": float(turns.max()) / 1e6 if len(turns) else None,
        "clock_offset_ms": float(np.abs(steps).max()) / 1e6 if len(steps) else None,
        "injectors": run.manifest.injectors,
        "workers": run.manifest.workers,
        "stamp": run.manifest.stamp,
    }
    if run.manifest.loop == "closed":
        found["turnaround_lag_ms"] = {name: lag_percentile(run, "turnaround_lag", q) for name, q in late.items()}
    return found


def lags(lags: Any) -> dict[str, float | None]:
    """p50, p99 and max without a floor: the client's conduct is known in full, not sampled."""
    if not len(lags):
        return {"p50": None, "p99": None, "max": None}
    p50, p99 = np.percentile(lags, [50, 99], method="inverted_cdf")
    return {"p50": float(p50), "p99": float(p99), "max": float(lags.max())}
