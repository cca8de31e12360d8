"""Points given as shares of what the baseline carries: which rate of arrivals they come to.

What is carried is counted in requests, what arrives may be conversations of many. So the plans that will be run are
made, and the rate is scaled until they send the share.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tailgate.harness.experiments.gate.run_specs import Experiment
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import make_plan

_CLOSE: Final = 0.005
_ROUNDS: Final = 6
_DIGITS: Final = 4


@dataclass(frozen=True)
class Load:
    """A share's load, per second."""

    rate: float  # of arrivals, as the specs have it
    planned: float  # requests in the measure phase, on average over the plans of the declared pairs


def shares(experiment: Experiment) -> dict[str, float]:
    return {name: point.share for name, point in experiment.policy.points.items() if point.share is not None}


def load_for(experiment: Experiment, point: str, wanted: float) -> Load:
    """The rate at which the plans of the declared pairs send `wanted` requests per second on average.

    The plans are scaled, not their expectation: a few bursty minutes can be far from it.
    """
    best: Load | None = None
    rate = wanted
    for _ in range(_ROUNDS):
        rate = float(f"{rate:.{_DIGITS}g}")
        load = Load(rate, planned_per_s(experiment.with_rate(point, rate), point))
        if best is None or abs(load.planned - wanted) < abs(best.planned - wanted):
            best = load
        if not load.planned or abs(load.planned / wanted - 1) <= _CLOSE:
            break
        rate *= wanted / load.planned
    assert best is not None
    if not best.planned:
        raise UserError(
            f"runs as long as these would send no request at {wanted:.3g}/s",
            where=f"policy: points.{point}", remedy="Make the runs longer.",
        )  # fmt: skip
    return best


def planned_per_s(experiment: Experiment, point: str) -> float:
    """Requests per second in the measure phase, over the plans of the declared pairs."""
    requests = seconds = 0.0
    for pair in range(1, experiment.policy.pairs + 1):
        spec = experiment.spec("baseline", point, pair)
        plan = make_plan(spec.workload, spec.seed)
        requests += np.count_nonzero(plan.table["phase"].to_numpy(zero_copy_only=False) == "measure")
        seconds += plan.span_s - spec.workload.warmup
    return requests / seconds if seconds > 0 else 0.0
