"""`summary.json` (`tailgate.summary/1`): the figures of one run, for scripts. Latencies in ms.

The shape is stable: keys are added, never renamed. A percentile its sample can't support is null (see
`percentile_needs`); an infinite one (failures counted as infinitely late) is the string "inf".
The documents for people (`reports.terminal`, `reports.html`) are made from it.
"""

import math
from pathlib import Path
from typing import Any, Final

import numpy as np

from loadgen.records import Status
from reports.analysis import Analysis, analyse
from reports.checks import Check, client_checks, client_column, lag_percentile
from reports.checks_server import server_checks
from reports.judge_slo import Judged, judge
from reports.manifest import write_atomic
from reports.metrics import Distribution
from reports.overload import InFlight, in_flight
from reports.stats import PERCENTILES

SCHEMA: Final = "tailgate.summary/1"
FILE_NAME: Final = "summary.json"


def summarize(run_dir: Path | str) -> dict[str, Any]:
    """Work out a collected run directory's summary.

    Raises:
        UserError: files are missing or damaged.
    """
    return summary_of(analyse(run_dir))


def write_summary(run_dir: Path | str) -> dict[str, Any]:
    """As `summarize`, and write `run_dir/summary.json`."""
    summary = summarize(run_dir)
    save_summary(run_dir, summary)
    return summary


def save_summary(run_dir: Path | str, summary: dict[str, Any]) -> None:
    """Write `run_dir/summary.json` in one step."""
    import orjson

    write_atomic(Path(run_dir) / FILE_NAME, orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n")


def exit_code(summary: dict[str, Any]) -> int:
    """The exit code a summary stands for: 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 INVALID, 130 interrupted."""
    return int(summary["exit_code"])


def summary_of(analysis: Analysis) -> dict[str, Any]:
    """The summary of an analysed run, as plain JSON values."""
    run, manifest = analysis.run, analysis.run.manifest
    flight = in_flight(run)
    checks = [*client_checks(analysis), *server_checks(analysis)]
    failed = [check for check in checks if check.status == "fail"]
    judged = judge(analysis, overloaded=bool(flight and flight.overloaded))
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "run": manifest.run,
        "valid": not failed,
        "invalid_reasons": [check.reason() for check in failed],
        "simulated": manifest.target.simulated,
        "state": manifest.state,
        "verdict": "",
        "exit_code": 0,
        "why": "",
        "load": _load(analysis, flight),
        "latency_ms": {name: _distribution(found) for name, found in analysis.latencies.items()},
        "latency_failed_as_inf_ms": {
            name: _distribution(found) for name, found in analysis.latencies_failed_as_inf.items()
        },
        "percentile_needs": _needs(analysis.latencies),
        "checks": [_check(check) for check in checks],
        "throughput": _throughput(analysis),
        "slo": _slo(analysis, judged),
        "errors": _errors(analysis),
        "cost": {},
        "energy": {},
        "server": {},
        "gpu": {},
        "client": _client(analysis),
        "notices": list(manifest.notices),
    }
    summary |= _verdict(analysis, failed, judged, summary)
    return summary


def _verdict(analysis: Analysis, failed: list[Check], judged: list[Judged], summary: dict[str, Any]) -> dict[str, Any]:
    """Verdict, exit code and one sentence why; validity comes before any result."""
    manifest = analysis.run.manifest
    if failed:
        by_hand = manifest.state == "interrupted" and not manifest.recovered
        return {
            "verdict": "INVALID",
            "exit_code": 130 if by_hand else 4,
            "why": summary["invalid_reasons"][0],
        }
    ok = summary["load"]["requests"].get("ok", 0)
    if manifest.state == "aborted":
        why = f"The run was aborted: {manifest.state_reason or 'a condition of abort_if held'}."
        return {"verdict": "FAIL", "exit_code": 1, "why": why}
    if not ok:
        return {"verdict": "FAIL", "exit_code": 1, "why": "No request of the measure phase ended ok."}
    broken = [j for j in judged if j.result == "broken"]
    unsure = [j for j in judged if j.result == "can't tell"]
    if broken:
        return {
            "verdict": "FAIL",
            "exit_code": 1,
            "why": "Broken: " + "; ".join(_said(j) for j in broken) + ".",
        }
    if unsure:
        why = "Can't tell: " + "; ".join(_said(j) for j in unsure) + "."
        return {"verdict": "INCONCLUSIVE", "exit_code": 3, "why": why}
    if judged:
        return {"verdict": "PASS", "exit_code": 0, "why": "Every objective is met with 95 % confidence."}
    return {"verdict": "PASS", "exit_code": 0, "why": "Measured; no objective was given (--slo)."}


def _said(judged: Judged) -> str:
    scale, unit = _unit_of(judged.threshold.metric)
    found = ", ".join(
        f"{name} {value * scale:.4g}{unit}"
        for name, value in (("found", judged.value), ("bounds", judged.below), ("to", judged.above))
        if value is not None
    )
    return f"{judged.threshold.text} ({found})" + (f", {judged.why}" if judged.why else "")


def _unit_of(metric: str) -> tuple[float, str]:
    if metric in ("errors", "attained"):
        return 100.0, " %"
    return (1.0, " /s") if metric.endswith("_per_s") or metric == "goodput" else (1.0, " ms")


def _load(analysis: Analysis, flight: InFlight | None) -> dict[str, Any]:
    run = analysis.run
    seconds = run.duration_s
    codes, names = run.texts("status")
    counts = np.bincount(codes[run.measured], minlength=len(names))
    found = dict(zip(names, counts.tolist(), strict=True))
    in_order = {status.value: found[status.value] for status in Status if found.get(status.value)}
    offered, sent = (int(np.count_nonzero(mask)) for mask in (analysis.offered, analysis.offered & analysis.attempted))
    load: dict[str, Any] = {
        "loop": run.manifest.loop,
        "offered_rps": offered / seconds if seconds else None,
        "sent_rps": sent / seconds if seconds else None,
        "duration_s": seconds,
        "requests": {"planned": int(counts.sum()), "ok": 0, **in_order},
        "all_phases": {"planned": len(run), "ok": int(np.count_nonzero(run.ok))},
    }
    if flight is not None:
        load["in_flight"] = {"mean": flight.mean, "max": flight.most, "growth": flight.growth}
        load["overloaded"] = flight.overloaded
    return load


def _distribution(found: Distribution) -> dict[str, Any]:
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


def _needs(found: dict[str, Distribution]) -> dict[str, dict[str, int]]:
    """For every percentile that is null: how many requests it needs."""
    return {
        name: short
        for name, one in found.items()
        if (short := {f"p{q:g}": one.at(q).needs for q in PERCENTILES if one.at(q).value is None})
    }


def _check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "status": check.status,
        "value": number(check.value),
        "bound": number(check.bound),
        "unit": check.unit,
        "why": check.why,
        "remedy": check.remedy,
    }


def _throughput(analysis: Analysis) -> dict[str, Any]:
    rates = analysis.throughput
    if rates is None:
        return {}
    return {
        "requests_per_s": rates.requests_per_s,
        "input_tokens_per_s": rates.input_tokens_per_s,
        "output_tokens_per_s": rates.output_tokens_per_s,
        "total_tokens_per_s": rates.total_tokens_per_s,
        "estimated_share": rates.estimated_share,
    }


def _slo(analysis: Analysis, judged: list[Judged]) -> dict[str, Any]:
    if not analysis.slo and not analysis.slo.good:
        return {}
    seconds, offered = analysis.run.duration_s, int(np.count_nonzero(analysis.judged))
    good = int(np.count_nonzero(analysis.good))
    admitted = offered - int(np.count_nonzero(analysis.judged & analysis.run.is_text("status", "rejected")))
    return {
        "attained": good / offered if offered else None,
        "attained_of_admitted": good / admitted if admitted else None,
        "good": good,
        "goodput_rps": good / seconds if seconds else None,
        "good_output_tokens_per_s": analysis.good_tokens_inside / seconds if seconds else None,
        "good_means": [f"{c.metric} {c.op} {c.limit:g} ms" for c in analysis.slo.good],
        "thresholds": [
            {
                "objective": j.threshold.text,
                "result": j.result,
                "value": number(j.value),
                "lower_bound": number(j.below),
                "upper_bound": number(j.above),
                "limit": j.threshold.limit,
                "unit": _unit_of(j.threshold.metric)[1].strip().replace("%", "fraction"),
                "why": j.why,
            }
            for j in judged
        ],
    }


def _errors(analysis: Analysis) -> dict[str, Any]:
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


def _client(analysis: Analysis) -> dict[str, Any]:
    run = analysis.run
    rows = client_column(run, "cpu_fraction")
    steps = client_column(run, "clock_step_ns")
    return {
        "dispatch_lag_ms": _plain(analysis.dispatch_lag_ms),
        "send_lag_ms": _plain(analysis.send_lag_ms),
        "receive_lag_ms": {
            f"p{q:g}" if q < 100 else "max": lag_percentile(run, "receive_lag", q) for q in (50, 99, 100)
        },
        "cpu_fraction_max": float(rows.max()) if len(rows) else None,
        "loop_max_ms": float(client_column(run, "loop_max_ns").max()) / 1e6 if len(rows) else None,
        "clock_offset_ms": float(np.abs(steps).max()) / 1e6 if len(steps) else None,
        "injectors": run.manifest.injectors,
        "stamp": run.manifest.stamp,
    }


def _plain(lags: Any) -> dict[str, float | None]:
    """p50, p99 and max without a floor: the client's conduct is known in full, not sampled."""
    if not len(lags):
        return {"p50": None, "p99": None, "max": None}
    p50, p99 = np.percentile(lags, [50, 99], method="inverted_cdf")
    return {"p50": float(p50), "p99": float(p99), "max": float(lags.max())}
