"""What a gate costs: one rule for what is estimated and for what was spent."""

from collections.abc import Mapping

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.experiments.gate.run_specs import Experiment
from tailgate.reports.cost.prices import price_of
from tailgate.reports.verdicts.gate.runs import SIDES, Side


def price_per_hour(spec: RunSpec) -> float | None:
    """Dollars per hour of a whole deployment; None without a price."""
    price = price_of(spec.gpus.model_dump())
    return None if price is None else price.usd_per_gpu_hour * spec.gpus.count


def dollars(found: Experiment, seconds: Mapping[Side, float], whole: float) -> float | None:
    """What both deployments cost; None unless both have a price, since half of a sum is none.

    A server that is started for its runs costs while they are made; one that stays (`restart: never`, or a URL)
    costs all the time. Two sides at the same URLs are one deployment.

    Args:
        found: whose sides have the prices.
        seconds: of each side's runs, launches included.
        whole: from the first run's begin to the last one's end.
    """
    bill, billed = 0.0, set[tuple[str, ...]]()
    for side in SIDES:
        spec = found.sample(side)
        price = price_per_hour(spec)
        if price is None:
            return None
        stays = spec.target.kind == "url" or found.policy.restart == "never"
        if spec.target.kind == "url":
            if spec.target.all_urls in billed:
                continue
            billed.add(spec.target.all_urls)
        bill += price / 3600 * (whole if stays else seconds[side])
    return bill
