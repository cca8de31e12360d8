"""A profile from a log: each part fitted, checked against the log by drawing from it, and written as YAML.

What the log can't support is left out with the reason; a log that supports nothing is refused.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from workloads.columns import NO_TIME, Columns
from workloads.describe import dispersion, gap_cv, ks_distance, on_off, spearman
from workloads.errors import UserError
from workloads.fit.arrivals import LEAST_ARRIVALS, ArrivalFit, fit_arrivals, fit_days
from workloads.fit.estimate import Estimate, quantile
from workloads.fit.lengths import correlation, law_of
from workloads.fit.sessions import SessionFit, fit_sessions, infer_sessions
from workloads.plan import make_plan
from workloads.reuse import implied_reuse
from workloads.spec import TraceSpec, WorkloadSpec
from workloads.traces.replay import load

_SEEDS: Final = 10
_WINDOWS: Final = (1.0, 10.0, 60.0)
_LEAST_PAUSES: Final = 20


@dataclass(frozen=True)
class Check:
    """A figure of the log beside the same figure of what the fit draws (mean of 10 seeds)."""

    name: str
    log: float | None
    fit: float | None


@dataclass(frozen=True)
class Fit:
    """A fitted profile: `profile` is its YAML content, `estimates` its figures with intervals."""

    profile: dict[str, Any]
    estimates: dict[str, Estimate]
    checks: list[Check]
    notes: list[str] = field(default_factory=list)


def fit_profile(trace: TraceSpec, title: str = "") -> Fit:
    """Fit a log.

    Raises:
        UserError: it can't be read, or holds fewer than 200 requests.
    """
    replay = load(trace, 0)
    columns, notes = replay.columns, list(replay.notices)
    size = replay.block_tokens or 64
    if len(columns) < LEAST_ARRIVALS:
        raise UserError(
            f"{len(columns)} requests are too few to fit anything ({LEAST_ARRIVALS} at least)", where=str(trace.file)
        )
    estimates: dict[str, Estimate] = {}
    workload: dict[str, Any] = {"block_tokens": size}
    common = _fit_prefix(columns, size, workload, notes)
    timed = replay.has_times and bool((columns.at_ns != NO_TIME).all())
    if timed and columns.prefix_blocks is not None and not (columns.turn > 0).any():
        columns = infer_sessions(columns, size, common)
        if (columns.turn > 0).any():
            notes.append("conversations are told from prefix blocks: a request continues one whose blocks it repeats")
    sessions = fit_sessions(columns) if timed else None
    if sessions is not None:
        workload["sessions"] = sessions.spec
        estimates["turns.mean"] = sessions.turns
        if sessions.think_s is not None:
            estimates["think_s.p50"] = sessions.think_s
        notes += sessions.notes
    _fit_lengths(columns, sessions, workload, estimates)
    if replay.has_times:
        _fit_times(columns, sessions, workload, estimates, notes)
    else:
        workload |= {"users": 16}
        notes.append("the log has no times: a closed loop of 16 users stands in for its arrivals")
    workload["duration"] = "10m"
    profile = {
        "title": title or f"Fitted to {trace.file.name}",
        "about": f"Fitted to {len(columns):,} requests of {trace.file.name}.",
        "sources": [f"{trace.file.name}, {len(columns):,} requests"],
        "rule": "Requests beyond the model's context are clipped: the prompt is shortened.",
        "facts": {name: estimate.as_dict() for name, estimate in estimates.items()},
        "workload": workload | {"over_context": "clip"},
    }
    return Fit(profile, estimates, _checks(columns, workload, size), notes)


def to_yaml(fit: Fit) -> str:
    """The profile as a file, with the checks as comments."""
    import yaml

    lines = [f"# {check.name}: log {_shown(check.log)}, fit {_shown(check.fit)}" for check in fit.checks]
    lines += [f"# {note}" for note in fit.notes]
    return "\n".join(lines) + "\n" + yaml.safe_dump(fit.profile, sort_keys=False, width=110, allow_unicode=True)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _fit_lengths(
    columns: Columns, sessions: SessionFit | None, workload: dict[str, Any], estimates: dict[str, Estimate]
) -> None:
    first = np.ones(len(columns), bool) if sessions is None else sessions.first
    workload["prompt_tokens"] = law_of(columns.prompt_tokens[first])
    workload["output_tokens"] = law_of(columns.output_tokens)
    for name, values in (("prompt_tokens", columns.prompt_tokens[first]), ("output_tokens", columns.output_tokens)):
        for share, label in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99")):
            found = quantile(values, share)
            if found is not None:
                estimates[f"{name}.{label}"] = found
    rho = correlation(columns.prompt_tokens[first], columns.output_tokens[first])
    estimates["correlation"] = rho
    workload["correlation"] = round(rho.value, 3)


def _fit_times(
    columns: Columns,
    sessions: SessionFit | None,
    workload: dict[str, Any],
    estimates: dict[str, Estimate],
    notes: list[str],
) -> None:
    timed = columns.at_ns != NO_TIME
    starts = timed if sessions is None else timed & sessions.first
    times_s = np.sort(columns.at_ns[starts]) / 1e9
    span_s = _span_s(times_s)
    if len(times_s) < LEAST_ARRIVALS or span_s <= 0:
        raise UserError(
            f"{len(times_s)} arrivals are too few to fit their law ({LEAST_ARRIVALS} at least)", where="log"
        )
    bursts = _bursts(times_s, estimates)
    if bursts is not None:
        workload["arrivals"] = {"process": "gamma", "rate": _rounded(len(times_s) / span_s), **bursts}
        notes.append("traffic comes in bursts: their lengths and pauses are fitted, not a modulation of the rate")
        return
    daily = fit_days(times_s, span_s)
    if daily is not None:
        factors, rate = daily
        _keep(estimates, "rate", rate)
        workload["arrivals"] = {"process": "poisson", "rate": _rounded(rate.value), "daily": {"hours": list(factors)}}
        notes.append("the log holds days: their mean shape is fitted (hour 0 is the log's first), not a modulation")
        return
    found = fit_arrivals(times_s, span_s)
    notes += found.notes
    _keep(estimates, "rate", found.rate)
    workload["arrivals"] = _arrivals(found, estimates)


def _arrivals(found: ArrivalFit, estimates: dict[str, Estimate]) -> dict[str, Any]:
    arrivals: dict[str, Any] = {"process": "poisson", "rate": _rounded(found.rate.value)}
    if found.shape is not None:
        estimates["shape"] = found.shape
        arrivals |= {"process": "gamma", "shape": _rounded(found.shape.value)}
    if found.cv is not None and found.correlation_s is not None:
        _keep(estimates, "modulation.cv", found.cv)
        _keep(estimates, "modulation.correlation_s", found.correlation_s)
        arrivals["modulation"] = [
            {"cv": min(_rounded(found.cv.value), 5.0), "correlation": _rounded(found.correlation_s.value)}
        ]
    return arrivals


def _keep(estimates: dict[str, Estimate], name: str, estimate: Estimate) -> None:
    if estimate.known:
        estimates[name] = estimate


def _bursts(times_s: Any, estimates: dict[str, Estimate]) -> dict[str, Any] | None:
    """Bursts and pauses, where pauses of at least 30 times the mean gap within bursts take a fifth of the time."""
    gaps = np.diff(times_s)
    threshold = max(30.0 * float(np.quantile(gaps, 0.9)) / 2.3, 30.0 * float(np.median(gaps)))
    found = on_off(times_s, threshold)
    if len(found.off_s) < _LEAST_PAUSES or found.duty > 0.8:
        return None
    inside = gaps[(gaps < threshold) & (gaps > 0)]
    for name, values in (("burst_s", found.on_s), ("pause_s", found.off_s)):
        median = quantile(values, 0.5)
        if median is not None:
            estimates[f"{name}.p50"] = median
    shape = 1.0 / float(inside.var() / inside.mean() ** 2)
    bursts = {"burst": law_of(np.maximum(found.on_s, 1e-3)), "pause": law_of(found.off_s, logarithmic=True)}
    return {"shape": min(max(_rounded(shape), 0.05), 100.0), "bursts": bursts}


def _fit_prefix(columns: Columns, size: int, workload: dict[str, Any], notes: list[str]) -> int:
    """The blocks that most prompts begin with, as a system prompt; how many they are."""
    if columns.prefix_blocks is None:
        notes.append("the log doesn't say what prompts share: the profile shares nothing but a session's own history")
        return 0
    lists = columns.prefix_blocks.to_pylist()
    common = 0
    while True:
        at = [ids[common] for ids in lists if len(ids) > common]
        if len(at) < 0.5 * len(lists):
            break
        values, counts = np.unique(np.array(at, dtype=np.uint64), return_counts=True)
        if counts.max() < 0.5 * len(lists):
            break
        common += 1
        lists = [ids for ids in lists if len(ids) >= common and ids[common - 1] == int(values[counts.argmax()])]
    if common:
        workload["prefix"] = {"system_tokens": common * size}
    return common


def _checks(columns: Columns, workload: dict[str, Any], block_tokens: int) -> list[Check]:
    """Figures of the log beside those of plans drawn from the fit over the same span."""
    timed = columns.at_ns[columns.at_ns != NO_TIME]
    span_s = _span_s(np.sort(timed) / 1e9) if len(timed) else 0.0
    spec = dict(workload) | ({"duration": span_s} if "arrivals" in workload else {"requests": len(columns)})
    if "arrivals" not in workload:
        spec.pop("duration", None)
    seeds = range(_SEEDS if len(columns) <= 100_000 else 3)
    drawn = [make_plan(WorkloadSpec.model_validate(spec), seed).table for seed in seeds]

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    checks: list[Check] = []
    if "arrivals" in workload:
        log_s = np.sort(timed) / 1e9
        plans = [np.sort(table["at_ns"].drop_null().to_numpy()) / 1e9 for table in drawn]
        checks.append(Check("requests per second", len(log_s) / span_s, mean([len(s) / span_s for s in plans])))
        checks.append(Check("variation of gaps", gap_cv(log_s), mean([gap_cv(s) for s in plans])))
        checks += [
            Check(
                f"dispersion at {window:g} s",
                dispersion(log_s, window, span_s).value,
                mean([dispersion(s, window, span_s).value for s in plans]),
            )
            for window in _WINDOWS
        ]
    for name in ("prompt_tokens", "output_tokens"):
        log = getattr(columns, name)
        distances: list[float | None] = [ks_distance(table[name].to_numpy(), log) for table in drawn]
        checks.append(Check(f"KS distance of {name}", 0.0, mean(distances)))
    correlations: list[float | None] = [_correlation(table) for table in drawn]
    checks.append(Check("rank correlation", spearman(columns.prompt_tokens, columns.output_tokens), mean(correlations)))
    if columns.prefix_blocks is not None:
        log_table = pa.table({"prompt_tokens": columns.prompt_tokens, "prefix_blocks": columns.prefix_blocks})
        shares: list[float | None] = [implied_reuse(table, block_tokens).token_share for table in drawn]
        own = implied_reuse(log_table, block_tokens).token_share
        checks.append(Check("prompt tokens seen before", own, mean(shares)))
    return checks


def _correlation(table: pa.Table) -> float:
    return spearman(table["prompt_tokens"].to_numpy(), table["output_tokens"].to_numpy())


def _span_s(times_s: Any) -> float:
    """The log's length: from its first to its last arrival, and one mean gap more."""
    if len(times_s) < 2:
        return 0.0
    return float((times_s[-1] - times_s[0]) * len(times_s) / (len(times_s) - 1))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def write(fit: Fit, path: Path) -> None:
    """The profile as a YAML file.

    Raises:
        UserError: it can't be written.
    """
    try:
        path.write_text(to_yaml(fit), encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=str(path)) from error
