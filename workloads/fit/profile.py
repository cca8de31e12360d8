"""A profile from a log: fitted, checked against the log by drawing from it, and written as YAML.

What the log can't support is left out with the reason; a log that supports nothing is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import TraceSpec
from tailgate.workloads.fit.goodness_of_fit import FitCheck, FittedValue, checks
from tailgate.workloads.fit.workload import fit_workload


@dataclass(frozen=True)
class Fit:
    """A fitted profile: `profile` is its YAML content, `estimates` its figures with intervals."""

    profile: dict[str, Any]
    estimates: dict[str, FittedValue]
    checks: list[FitCheck]
    notes: list[str]


def fit_profile(trace: TraceSpec, title: str = "") -> Fit:
    """Fit a log of at least 200 requests, and check the fit against it."""
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
    """Write the profile as a YAML file."""
    try:
        path.write_text(to_yaml(fit), encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=str(path)) from error
