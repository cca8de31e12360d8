"""The figures of a plan that `tailgate workload` prints: rates, dispersion, lengths, sharing, by class and tenant.

They are plain numbers, named with their units and ready for JSON; the caller lays them out.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.plan.plan import Plan
from tailgate.workloads.statistics.arrivals import dispersion, gap_cv, peak_to_mean, spearman
from tailgate.workloads.statistics.prefix_reuse import implied_reuse

WINDOWS_S: Final = (1.0, 10.0, 60.0)
_QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


def plan_figures(plan: Plan) -> dict[str, Any]:
    """All figures of a plan.

    Rates and dispersion describe the rows that have a time of their own (in an open loop with conversations, their
    starts); a closed loop has none.
    """
    table = plan.table
    prompt, output = (table[name].to_numpy() for name in ("prompt_tokens", "output_tokens"))
    turns, sessions = table["turn"].to_numpy(), table["session"].to_numpy()
    figures: dict[str, Any] = {
        "loop": plan.loop,
        "requests": table.num_rows,
        "sessions": len(np.unique(sessions)),
        "plan_hash": plan.plan_hash,
        "workload_hash": plan.workload_hash,
        "prompt_tokens": _lengths(prompt),
        "output_tokens": _lengths(output),
        "rank_correlation": _rounded(spearman(prompt, output)),
        "notices": list(plan.notices),
    }
    if (turns > 0).any():
        per_session = np.unique(sessions, return_counts=True)[1]
        figures["turns"] = _lengths(per_session)
    reuse = implied_reuse(table, plan.block_tokens)
    figures["prompt_tokens_seen_before"] = _rounded(reuse.token_share)
    figures |= _times(timed_s(plan), plan.span_s, prompt, output)
    for column in ("class", "tenant"):
        names = table[column].to_numpy(zero_copy_only=False)
        shown = np.unique(names.astype(str))
        if len(shown) > 1:
            figures[f"by_{column}"] = {
                name: {
                    "requests": int((names == name).sum()),
                    "prompt_tokens": _lengths(prompt[names == name]),
                    "output_tokens": _lengths(output[names == name]),
                }
                for name in shown.tolist()
            }
    return figures


def timed_s(plan: Plan) -> Floats:
    """Times of the rows that have one, ascending, in seconds."""
    return np.asarray(np.sort(plan.table["at_ns"].drop_null().to_numpy()) / 1e9)


def _times(times_s: Floats, span: float, prompt: npt.NDArray[Any], output: npt.NDArray[Any]) -> dict[str, Any]:
    if len(times_s) < 2:
        return {}
    return {
        "seconds": _rounded(span),
        "starts_per_s": _rounded(len(times_s) / span),
        "prompt_tokens_per_s": _rounded(float(prompt.sum()) / span),
        "output_tokens_per_s": _rounded(float(output.sum()) / span),
        "gap_cv": _rounded(gap_cv(times_s)),
        "dispersion": [
            {"window_s": index.window_s, **{key: _rounded(getattr(index, key)) for key in ("value", "low", "high")}}
            for index in (dispersion(times_s, window, span) for window in WINDOWS_S)
        ],
        "peak_to_mean": {
            f"{window:g}s": _rounded(peak_to_mean(times_s, window, span)) for window in (10.0, 60.0) if span >= window
        },
    }


def _lengths(values: npt.NDArray[Any]) -> dict[str, float]:
    shares = np.quantile(values, [share for _, share in _QUANTILES])
    return {
        "mean": _rounded(float(values.mean())) or 0.0,
        **{name: float(value) for (name, _), value in zip(_QUANTILES, shares.tolist(), strict=True)},
        "max": float(values.max()),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
