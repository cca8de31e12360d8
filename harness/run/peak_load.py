"""A plan's busiest second against what this machine was calibrated for: bursts count, not the mean."""

import numpy as np

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.host import calibration
from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.plan.plan import Plan

_TOKENS_PER_S = 50.0  # of one answer; how fast the server really is nobody knows before


def beyond_calibration(spec: RunSpec, plan: Plan) -> str | None:
    """A warning, where this machine was calibrated with as many injectors and the plan is near what it can measure.

    None for a closed loop, whose rate the server decides, and where other machines send.
    """
    if plan.loop == "closed" or spec.workers is not None or not plan.table.num_rows:
        return None
    injectors = spec.injector_count
    requests, chunks = busiest(plan, injectors)
    return calibration.warning(requests, chunks, injectors)


def busiest(plan: Plan, injectors: int) -> tuple[float, float]:
    """(requests/s, chunks/s) of the busiest injector's busiest second, times the number of injectors.

    Later turns have no time of their own: with them the mean over the plan's length, if that is higher.
    """
    at_s = plan.table["at_ns"].to_numpy().astype(np.float64) / 1e9  # null: NaN
    mine = plan.table["session"].to_numpy() % injectors
    tokens = plan.table["output_tokens"].to_numpy().astype(np.float64)
    requests = chunks = 0.0
    for number in range(injectors):
        rows = (mine == number) & np.isfinite(at_s)
        if rows.any():
            requests = max(requests, float(np.bincount(at_s[rows].astype(np.int64)).max()))
            chunks = max(chunks, _most_chunks(at_s[rows], tokens[rows]))
    length_s = max(plan.span_s, 1.0)
    return max(requests * injectors, len(at_s) / length_s), max(chunks * injectors, float(tokens.sum()) / length_s)


def _most_chunks(begin_s: Floats, tokens: Floats) -> float:
    """Chunks of the busiest second where each answer gives _TOKENS_PER_S from its beginning on."""
    end_s = begin_s + tokens / _TOKENS_PER_S
    edges = np.arange(np.ceil(end_s.max()) + 1)
    until = _TOKENS_PER_S * (_elapsed(edges, begin_s) - _elapsed(edges, end_s))
    return float(np.diff(until).max())


def _elapsed(now_s: Floats, since_s: Floats) -> Floats:
    """At each time, how long ago those of ``since_s`` that lie before it were, in sum."""
    since = np.sort(since_s)
    count = np.searchsorted(since, now_s, side="right")
    return np.asarray(now_s * count - np.concatenate([[0.0], np.cumsum(since)])[count])
