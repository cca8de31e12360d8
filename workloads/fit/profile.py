"""A profile from a log: each part fitted by its own module, checked by drawing from it, and written as YAML.

What the log can't support is left out with the reason; a log that supports nothing is refused.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import TraceSpec
from tailgate.workloads.fit.arrivals.arrivals import LEAST_ARRIVALS, fit_arrivals
from tailgate.workloads.fit.arrivals.binned_counts import LoggedArrivals
from tailgate.workloads.fit.arrivals.daily import fit_days
from tailgate.workloads.fit.arrivals.gaps import resolution_ns
from tailgate.workloads.fit.arrivals.on_off import fit_bursts
from tailgate.workloads.fit.goodness_of_fit import FitCheck, FittedValue, checks, draw, quantile, reuse_of, span_s
from tailgate.workloads.fit.lengths import correlation, expression_of
from tailgate.workloads.fit.prefix_sharing import common_blocks, fit_pool
from tailgate.workloads.fit.sessions import SessionFit, fit_sessions, infer_sessions
from tailgate.workloads.statistics.prefix_reuse import implied_reuse
from tailgate.workloads.table.columns import NO_TIME, Columns
from tailgate.workloads.traces.replay import Replay, load

_SEEDS: Final = 3
_MANY_ROWS: Final = 20_000
_TOLERANCE: Final = 0.1
_LEAST_MISS: Final = 0.02


@dataclass(frozen=True)
class Fit:
    """A fitted profile: `profile` is its YAML content, `estimates` its figures with intervals."""

    profile: dict[str, Any]
    estimates: dict[str, FittedValue]
    checks: list[FitCheck]
    notes: list[str]


def fit_profile(trace: TraceSpec, title: str = "") -> Fit:
    fitted = fit_workload(trace)
    results = checks(fitted.columns, fitted.workload, fitted.block_tokens, fitted.tick_s)
    off = [check.name for check in results if not check.ok]
    if off:
        fitted.notes.append(f"what the profile draws differs from the log in: {', '.join(off)} (see the fit's error)")
    n, name = len(fitted.columns), trace.file.name
    profile = {
        "title": title or f"Fitted to {name}",
        "about": f"Fitted to {n:,} requests of {name}.",
        "sources": [f"{name}, {n:,} requests"],
        "rule": "Requests beyond the model's context are clipped: the prompt is shortened.",
        "facts": {name: estimate.as_dict() for name, estimate in fitted.estimates.items()},
        "workload": fitted.workload | {"over_context": "clip"},
    }
    return Fit(profile, fitted.estimates, results, fitted.notes)


def to_yaml(fit: Fit) -> str:
    """The profile as YAML, with the checks as comments."""
    import yaml

    lines = [
        f"# {check.name}: log {check.log:.4g}, fit {check.fit:.4g}" + ("" if check.ok else " (off)")
        for check in fit.checks
    ]
    lines += [f"# {note}" for note in fit.notes]
    return "\n".join(lines) + "\n" + yaml.safe_dump(fit.profile, sort_keys=False, width=110, allow_unicode=True)


def write(fit: Fit, path: Path) -> None:
    try:
        path.write_text(to_yaml(fit), encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=str(path)) from error


@dataclass(frozen=True)
class Fitted:
    """A workload fitted to a log's requests: its spec, its figures with intervals, and notes on what was left out.

    `tick_s` is the resolution of the log's stamps.
    """

    columns: Columns
    block_tokens: int
    tick_s: float
    workload: dict[str, Any] = field(default_factory=dict)
    estimates: dict[str, FittedValue] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def keep(self, name: str, estimate: FittedValue | None) -> None:
        """Keep a figure if it has an interval."""
        if estimate is not None and estimate.known:
            self.estimates[name] = estimate


def fit_workload(trace: TraceSpec) -> Fitted:
    """Fit a log of at least 200 requests; a UserError where it has fewer or can't be read."""
    # As they were stamped: arrivals spread within a coarse grid would tell the law of the spreading.
    return fit_replay(load(trace.model_copy(update={"spread": False}), 0), str(trace.file))


def fit_replay(replay: Replay, where: str) -> Fitted:
    """Fit the requests of a log that was read from `where`; a UserError where they are fewer than 200."""
    columns, size = replay.columns, replay.block_tokens or 64
    if len(columns) < LEAST_ARRIVALS:
        raise UserError(f"{len(columns)} requests are too few to fit anything ({LEAST_ARRIVALS} at least)", where=where)
    stamped = columns.at_ns != NO_TIME
    tick_s = resolution_ns(columns.at_ns[stamped]) / 1e9 if replay.has_times else 0.0
    notes, common = list(replay.notices), common_blocks(columns)
    sessions = None
    if replay.has_times and stamped.all():
        columns, sessions = _conversations(columns, size, common, tick_s, notes)
    fitted = Fitted(columns, size, tick_s, {"block_tokens": size}, notes=notes)
    if common:
        fitted.workload["prefix"] = {"system_tokens": common * size}
    if sessions is not None:
        fitted.workload["sessions"] = sessions.spec
        fitted.keep("turns.mean", sessions.turns)
        fitted.keep("think_s.p50", sessions.think_s)
        notes += sessions.notes
    _fit_lengths(fitted, sessions)
    if replay.has_times:
        _fit_times(fitted, sessions)
    else:
        fitted.workload["users"] = 16
        notes.append("the log has no times: a closed loop of 16 users stands in for its arrivals")
    fitted.workload["duration"] = "10m"
    _fit_sharing(fitted, common)
    return fitted


def _conversations(
    columns: Columns, block_tokens: int, common: int, tick_s: float, notes: list[str]
) -> tuple[Columns, SessionFit | None]:
    """The log's own sessions, or those inferred from prefix blocks if prompts hold what was said before."""
    if columns.prefix_blocks is None or (columns.turn > 0).any():
        return columns, fit_sessions(columns, tick_s)
    inferred = infer_sessions(columns, block_tokens, common)
    sessions = fit_sessions(inferred, tick_s)
    if sessions is None or sessions.spec.get("history") == "none":
        return columns, None
    notes.append("conversations are told from prefix blocks: a request continues one whose blocks it repeats")
    return inferred, sessions


def _fit_lengths(fitted: Fitted, sessions: SessionFit | None) -> None:
    columns = fitted.columns
    first = np.ones(len(columns), bool) if sessions is None else sessions.first
    prompt, output = columns.prompt_tokens[first], columns.output_tokens
    rho = correlation(prompt, output[first])
    fitted.workload.update(
        prompt_tokens=expression_of(prompt), output_tokens=expression_of(output), correlation=round(rho.value, 3)
    )
    for name, values in (("prompt_tokens", prompt), ("output_tokens", output)):
        for share, label in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99")):
            fitted.keep(f"{name}.{label}", quantile(values, share))
    fitted.keep("correlation", rho)


def _fit_times(fitted: Fitted, sessions: SessionFit | None) -> None:
    columns, notes = fitted.columns, fitted.notes
    timed = columns.at_ns != NO_TIME
    starts = timed if sessions is None else timed & sessions.first
    times_s = np.sort(columns.at_ns[starts]) / 1e9
    span = span_s(times_s)
    if len(times_s) < LEAST_ARRIVALS or span <= 0:
        raise UserError(f"{len(times_s)} arrivals are too few to fit ({LEAST_ARRIVALS} at least)", where="log")
    bursts = fit_bursts(times_s, fitted.tick_s)
    if bursts is not None:
        fitted.workload["arrivals"] = {"rate": _rounded(len(times_s) / span)} | bursts.spec
        for name, estimate in bursts.estimates.items():
            fitted.keep(name, estimate)
        notes.append("traffic comes in bursts: their lengths and pauses are fitted, not a modulation of the rate")
        if "shape" not in bursts.spec:
            notes.append(f"stamps {fitted.tick_s:.3g} s apart don't tell the law of gaps in bursts: they are Poisson's")
        return
    times_s -= times_s[0]
    days = fit_days(times_s, span)
    fit = fit_arrivals(LoggedArrivals(times_s, span, fitted.tick_s, None if days is None else days.over(span)))
    notes += fit.notes
    rate = fit.rate if days is None else days.rate
    fitted.keep("rate", rate)
    if not rate.known:
        notes.append("the rate is the log's own and has no interval: the log holds too few of its ups and downs")
    arrivals: dict[str, Any] = {"process": "poisson", "rate": _rounded(rate.value)}
    fitted.keep("shape", fit.shape)
    fitted.keep("modulation.cv", fit.cv)
    fitted.keep("modulation.correlation_s", fit.correlation_s)
    if fit.shape is not None:
        arrivals |= {"process": "gamma", "shape": _rounded(fit.shape.value)}
    if fit.cv is not None and fit.correlation_s is not None:
        cv, correlation_s = min(_rounded(fit.cv.value), 5.0), _rounded(fit.correlation_s.value)
        arrivals["modulation"] = [{"cv": cv, "correlation": correlation_s}]
    if days is not None:
        arrivals["daily"] = {"hours": list(days.factors)}
        notes.append("the log holds days: their mean shape is fitted (hour 0 is the log's first)")
    fitted.workload["arrivals"] = arrivals


def _fit_sharing(fitted: Fitted, common: int) -> None:
    """Add a pool of contexts where the system prompt and the conversations don't explain what prompts share."""
    columns, workload = fitted.columns, fitted.workload
    if columns.prefix_blocks is None:
        note = "the log doesn't say what prompts share: the profile shares nothing but a session's own history"
        fitted.notes.append(note)
        return
    span = span_s(np.sort(columns.at_ns[columns.at_ns != NO_TIME]) / 1e9)
    prefix, wanted = workload.get("prefix", {}), reuse_of(columns, fitted.block_tokens)
    seeds = _SEEDS if len(columns) < _MANY_ROWS else 1

    def drawn(shared: dict[str, Any]) -> float:
        tables = draw(columns, workload | {"prefix": prefix | shared}, span, seeds)
        return float(np.mean([implied_reuse(table, fitted.block_tokens).token_share for table in tables]))

    miss = abs(drawn({}) - wanted)
    if miss <= max(_TOLERANCE * wanted, _LEAST_MISS):
        return
    pool = fit_pool(columns, fitted.block_tokens, common, wanted, lambda shared: drawn({"shared": shared}))
    if pool is not None and abs(drawn({"shared": pool}) - wanted) < miss:
        workload["prefix"] = prefix | {"shared": pool}
    else:
        fitted.notes.append("prompts share what neither a system prompt, conversations nor a pool of contexts explain")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
