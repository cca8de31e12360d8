"""Can this machine tell what the policy asks? Refused before any load only where it clearly can't.

What is expected of the machine is a coarse class (`harness.host.expected_error`), and how large a figure is nobody
knows before it is measured: an objective on it says how large it may be, else it is taken for a large one.
"""

from collections.abc import Iterator
from typing import Final

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.experiments.gate.run_specs import Experiment
from tailgate.harness.host.expected_error import ExpectedError
from tailgate.harness.host.load_probe import MachineState
from tailgate.harness.run.expectation import expectation
from tailgate.reports.metrics import slo as slo_grammar
from tailgate.reports.verdicts.gate.metrics import GateMetric
from tailgate.reports.verdicts.gate.policy import Policy
from tailgate.reports.verdicts.gate.thresholds import applies
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.formatting import plain
from tailgate.workloads.plan.plan import make_plan

# The expected error is one of a tail; medians and means have a small part of it, and a TPOT that of a whole answer.
_TAIL: Final = 95.0
_IN_A_TAIL: Final = ("ttft", "ttft_from_send", "itl", "stall", "e2e")
_BETWEEN_TOKENS: Final = ("itl", "stall")
# How large a figure is taken to be without an objective on it, ms.
_LARGE_MS: Final = {"itl": 100.0, "stall": 1_000.0, "ttft": 1_000.0, "ttft_from_send": 1_000.0, "e2e": 20_000.0}
# Clearly: the error is so many times what there is to tell, or the load so many times what the injectors can do.
_CLEARLY: Final = 2.0
_OWN: Final = "this machine's own error of {} will be about ± {} ms"


def require_precise(experiment: Experiment, machine: MachineState) -> list[str]:
    """What is expected at each point whose rate is known, one sentence each.

    Raises:
        UserError: a figure that the policy judges can't be told on this machine.
    """
    texts = []
    for point in experiment.points:
        if experiment.rate_unknown(point):
            continue
        spec = experiment.spec("baseline", point, 1)
        plan = make_plan(spec.workload, spec.seed)
        _, expected = expectation(spec, plan, machine)
        if expected is None:
            continue
        texts.append(expected.text)
        if plan.loop == "open" and (expected.use or 0.0) >= _CLEARLY:  # how fast users come back the server decides
            raise _refusal(f"the load is {expected.use:.1f} times what the injectors here can carry", "spec", expected)
        for what, where in _hidden(experiment.policy, point, spec, expected):
            raise _refusal(what, where, expected)
    return list(dict.fromkeys(texts))


def _refusal(what: str, where: str, expected: ExpectedError) -> UserError:
    remedy = f"{expected.remedy[:1].upper()}{expected.remedy[1:]}; or measure all the same (--anyway)."
    return UserError(f"{what}: that can't be decided here", where=f"policy: {where}", remedy=remedy)


def _hidden(policy: Policy, point: str, spec: RunSpec, expected: ExpectedError) -> Iterator[tuple[str, str]]:
    """(why it can't be told, where the policy asks it) of each figure that is lost in the expected error."""
    for at, metric in policy.tests():
        if at == point and metric.figure in _IN_A_TAIL and (metric.percentile or 0.0) >= _TAIL:
            size, why = _size(metric, policy, spec)
            error_ms = _error_ms(metric.figure, expected)
            if error_ms >= _CLEARLY * metric.margin * size:
                margin = f"{100 * metric.margin:g} % of {plain(size)} ms{why} is {plain(metric.margin * size)} ms"
                yield f"{margin}, and {_OWN.format(metric.key, plain(error_ms))}", f"metrics.{metric.key}"
    for threshold in policy.limits.thresholds:
        of_a_tail = threshold.metric in _IN_A_TAIL and (threshold.percentile or 0.0) >= _TAIL
        error_ms = _error_ms(threshold.metric, expected)
        if of_a_tail and applies(threshold, point, policy) and error_ms >= _CLEARLY * threshold.limit:
            figure = f"{threshold.metric}.{threshold.statistic}"
            what = f"the limit is {threshold.text}, and {_OWN.format(figure, plain(error_ms))}"
            yield what, f"thresholds.{threshold.metric}"


def _error_ms(figure: str, expected: ExpectedError) -> float:
    return expected.itl_ms if figure in _BETWEEN_TOKENS else expected.ttft_ms


def _size(metric: GateMetric, policy: Policy, spec: RunSpec) -> tuple[float, str]:
    """(how large the figure may be, ms; where that stands). A limit on a lower percentile says nothing of it."""
    limits = [
        threshold.limit
        for slo in (policy.limits, slo_grammar.parse(spec.slo))
        for threshold in slo.thresholds
        if threshold.metric == metric.figure and (threshold.percentile or 0.0) >= (metric.percentile or 0.0)
    ]
    if limits:
        return min(limits), ", its limit,"
    return _LARGE_MS[metric.figure], ", a large one,"
