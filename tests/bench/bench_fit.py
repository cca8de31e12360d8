"""How often the stated 95 % intervals of a fit cover the truth. `python tests/bench/bench_fit.py [seeds]`.

An hour of arrivals from known parameters, fitted once per seed (200 by default, about a minute on one core); lengths,
their correlation and pauses on 2,000 requests. Prints; asserts nothing.
"""

import sys
from functools import partial

import numpy as np

from workloads.arrivals.process import Process
from workloads.arrivals.rate import Modulated, Rates
from workloads.arrivals.renewal import Gamma
from workloads.fit.arrivals import fit_arrivals
from workloads.fit.estimate import Estimate, quantile
from workloads.fit.lengths import correlation
from workloads.plan import make_plan
from workloads.spec import WorkloadSpec
from workloads.streams import Stream

HOUR = 3600.0
CASES = (
    {"rate": 10.0, "shape": 0.7},
    {"rate": 10.0, "shape": 0.7, "cv": 0.4, "correlation_s": 30.0},
    {"rate": 20.0, "shape": 0.5, "cv": 0.3, "correlation_s": 60.0},
)


def arrivals(truth: dict[str, float], seeds: int) -> dict[str, list[Estimate]]:
    shapes = (Modulated(truth["cv"], truth["correlation_s"]),) if "cv" in truth else ()
    process = Process(Gamma(truth["shape"]), Rates(truth["rate"], shapes, scaled=False))
    found: dict[str, list[Estimate]] = {name: [] for name in truth}
    for seed in range(seeds):
        fit = fit_arrivals(process.times_ns(partial(Stream, seed, "fit"), HOUR, HOUR) / 1e9, HOUR)
        for name, estimates in found.items():
            estimate = getattr(fit, name)
            if estimate is not None:
                estimates.append(estimate)
    return found


def lengths(seeds: int) -> dict[str, list[Estimate]]:
    spec = {"prompt_tokens": "lognormal(6, 1)", "output_tokens": "lognormal(5, 1)", "correlation": 0.3}
    found: dict[str, list[Estimate]] = {"prompt p50": [], "prompt p90": [], "correlation": []}
    for seed in range(seeds):
        table = make_plan(WorkloadSpec.model_validate(spec | {"users": 1, "requests": 2000}), seed).table
        prompt, output = table["prompt_tokens"].to_numpy(), table["output_tokens"].to_numpy()
        for name, share in (("prompt p50", 0.5), ("prompt p90", 0.9)):
            estimate = quantile(prompt, share)
            if estimate is not None:
                found[name].append(estimate)
        found["correlation"].append(correlation(prompt, output))
    return found


def report(case: str, truth: dict[str, float], found: dict[str, list[Estimate]]) -> None:
    for name, estimates in found.items():
        covered = np.mean([one.low <= truth[name] <= one.high for one in estimates])
        mean = np.mean([one.value for one in estimates])
        print(f"{case:44} {name:14} truth {truth[name]:8.4g} mean {mean:8.4g} covered {100 * covered:5.1f} %")


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for truth in CASES:
        report(", ".join(f"{name} {value:g}" for name, value in truth.items()), truth, arrivals(truth, seeds))
    quantiles = {"prompt p50": np.exp(6.0), "prompt p90": np.exp(6.0 + 1.2815515655446004), "correlation": 0.3}
    report("lognormal lengths", {name: float(value) for name, value in quantiles.items()}, lengths(seeds))


if __name__ == "__main__":
    main()
