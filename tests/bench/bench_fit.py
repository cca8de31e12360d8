"""How often the stated 95 % intervals of a fit cover the truth. `python tests/bench/bench_fit.py [seeds]`.

For each seed (200 by default, some five minutes on one core) an hour of known parameters, stamped by a clock of a given
resolution, is fitted as `tailgate workload fit` does. Figures that a fit leaves without an interval are counted apart.
A coverage outside 91 to 98 % is marked; of some fifty figures one is by chance. Ends with 1 where chance hardly
explains it (1 in 1,000 if 95 % are covered, of a figure that most seeds state).
"""

import sys
from collections import defaultdict
from functools import partial

import numpy as np
import pyarrow as pa
from scipy.stats import binom

from tailgate.workloads.arrivals.process import Process
from tailgate.workloads.arrivals.rate_shapes import Modulated, Rates
from tailgate.workloads.arrivals.renewal import Gamma
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.fit.goodness_of_fit import FittedValue
from tailgate.workloads.fit.profile import fit_replay
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.sampling.random_streams import RandomStream
from tailgate.workloads.table.columns import stateless
from tailgate.workloads.traces.replay import Replay

HOUR = 3600.0
LEAST, MOST = 0.91, 0.98
TICKS = {"1 ns": 1, "100 ns": 100, "1 us": 1000, "1 ms": 1_000_000, "1 s": 1_000_000_000}
# Rate per second, shape; cv and correlation time (s) of the rate; the clock.
ARRIVALS: tuple[tuple[float, float, tuple[float, float] | None, str], ...] = (
    (10.0, 0.7, None, "1 ns"),
    (5.0, 0.94, None, "1 ms"),
    (20.0, 0.5, None, "1 us"),
    (5.0, 0.3, None, "100 ns"),
    (5.0, 0.3, None, "1 s"),
    (10.0, 0.7, (0.4, 30.0), "1 us"),
    (20.0, 0.5, (0.3, 60.0), "1 ns"),
    (2.0, 0.7, (0.6, 60.0), "1 ms"),
    (10.0, 0.3, (0.5, 90.0), "1 ns"),
    (5.0, 1.0, (0.5, 5.0), "1 ns"),
    (10.0, 0.7, (0.4, 30.0), "1 s"),
    (10.0, 0.9, (0.3, 900.0), "1 ms"),
)
LENGTHS = {"prompt_tokens": "lognormal(6, 1)", "output_tokens": "lognormal(5, 1)", "correlation": 0.3}
LENGTHS_TRUTH = {
    "prompt_tokens.p50": float(np.exp(6.0)),
    "prompt_tokens.p90": float(np.exp(6.0 + 1.2815515655446004)),
    "output_tokens.p50": float(np.exp(5.0)),
    "correlation": 0.3,
}
BURSTS = {"burst": "lognormal(2.74, 0.43)", "pause": "lognormal(3.2, 0.5)"}
BURSTS_TRUTH = {"burst_s.p50": float(np.exp(2.74)), "pause_s.p50": float(np.exp(3.2))}
SESSIONS = {"turns": "uniform(1, 8)", "think": "lognormal(4.885, 0.984)", "new_tokens": 50, "pace": "clock"}
SESSIONS_TRUTH = {"turns.mean": 4.5, "think_s.p50": float(np.exp(4.885)), "rate": 1.0, "shape": 1.0}


def estimates(table: pa.Table, tick_ns: int) -> dict[str, FittedValue]:
    names = ("at_ns", "session", "turn", "prompt_tokens", "output_tokens")
    columns = {name: table[name].to_numpy().astype(np.int64) for name in names}
    columns["at_ns"] = columns["at_ns"] // tick_ns * tick_ns
    return fit_replay(Replay(stateless(len(table), **columns)), "bench").estimates


def arrivals(rate: float, shape: float, modulation: tuple[float, float] | None, seed: int) -> pa.Table:
    process = Process(Gamma(shape), Rates(rate, (Modulated(*modulation),) if modulation else (), scaled=False))
    at_ns = process.times_ns(partial(RandomStream, seed, "fit"), HOUR, HOUR)
    n = len(at_ns)
    session, turn, tokens = np.arange(n), np.zeros(n, np.int64), 100 + np.arange(n) % 7
    names = ("at_ns", "session", "turn", "prompt_tokens", "output_tokens")
    return pa.table(dict(zip(names, (at_ns, session, turn, tokens, tokens), strict=True)))


def planned(spec: dict[str, object], seed: int) -> pa.Table:
    return make_plan(WorkloadSpec.model_validate(LENGTHS | spec), seed).table


def report(case: str, truth: dict[str, float], found: list[dict[str, FittedValue]]) -> bool:
    """Prints a line a figure; whether all that are mostly stated cover as often as they should, but for chance."""
    good = True
    stated: dict[str, list[FittedValue]] = defaultdict(list)
    for one in found:
        for name, estimate in one.items():
            stated[name].append(estimate)
    for name, value in truth.items():
        each = stated[name]
        line = f"{case:48} {name:26} truth {value:8.4g}  stated by {len(each):3} of {len(found)}"
        if each:
            covered = float(np.mean([one.low <= value <= one.high for one in each]))
            outside = not LEAST <= covered <= MOST
            mostly = len(each) > len(found) / 2
            good &= not mostly or binom.ppf(0.0005, len(each), 0.95) <= covered * len(each)
            middle = float(np.mean([one.value for one in each]))
            line += f"  mean {middle:8.4g}  covered {100 * covered:5.1f} %{'  outside' if outside else ''}"
        print(line, flush=True)
    return good


def main() -> int:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    good = True
    for rate, shape, modulation, clock in ARRIVALS:
        truth = {"rate": rate, "shape": shape}
        case = f"{rate:g}/s, shape {shape:g}, clock {clock}"
        if modulation is not None:
            truth |= {"modulation.cv": modulation[0], "modulation.correlation_s": modulation[1]}
            case += f", cv {modulation[0]:g} over {modulation[1]:g} s"
        good &= report(case, truth, [estimates(arrivals(rate, shape, modulation, k), TICKS[clock]) for k in seeds])
    spec: dict[str, object] = {"arrivals": {"rate": "2/s"}, "duration": "1h"}
    good &= report("lengths of 7,200 requests", LENGTHS_TRUTH, [estimates(planned(spec, k), 1) for k in seeds])
    spec = {"arrivals": {"process": "gamma", "shape": 0.6, "rate": "3/s", "bursts": BURSTS}, "duration": "1h"}
    good &= report("bursts and pauses", BURSTS_TRUTH, [estimates(planned(spec, k), 1) for k in seeds])
    spec = {"sessions": SESSIONS, "arrivals": {"rate": "1/s"}, "duration": "1h"}
    for clock in ("1 ns", "1 s"):
        found = [estimates(planned(spec, k), TICKS[clock]) for k in seeds]
        good &= report(f"conversations cut by the log's end, clock {clock}", SESSIONS_TRUTH, found)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
