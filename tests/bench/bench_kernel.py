"""Speed and memory of the engine on a virtual clock, compiled and in Python, and of the plans that it is given.

`python tests/bench/bench_kernel.py`: one H100 with llama-3.1-8b, Poisson arrivals, prompts of 500 and answers of 200
tokens, an hour of load. Each figure is taken in a process of its own; its CPU time counts, and its own peak memory.
Exit code 1 where a bound isn't held.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable

from tailgate.harness.engine.config import Settings, resolve
from tailgate.harness.engine.model.kv_cache import BlockPool
from tailgate.harness.engine.model.scheduler import EngineSequence, Scheduler
from tailgate.harness.engine.virtual.kernel import EngineLimits, RequestArrays, serve, why_not
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import open_columns

H100 = resolve(Settings("h100-sxm/llama-3.1-8b"))
LEAST_KERNEL, MOST_MB, MOST_PLAN_S = 30_000, 1000, 10
FIXED = {"prompt_tokens": 500, "output_tokens": 200}


def load(rate: float, hours: float) -> RequestArrays:
    return RequestArrays.of(open_columns(spec(hours, {**FIXED, "arrivals": {"rate": rate}}), 7))


def spec(hours: float, what: dict[str, object]) -> WorkloadSpec:
    return WorkloadSpec.model_validate({**what, "duration": f"{hours}h"})


def cpu(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def compiled(rate: float, *, tokens: bool = False) -> bool:
    """An hour in the kernel, with the series each second."""
    requests = load(rate, 1.0)
    limits, law = EngineLimits.of(H100), H100.step_time.law
    spent = cpu(lambda: serve(requests, limits, law, interval_s=1.0, tokens=tokens))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    what = f"kernel, {rate:g} req/s{', all token times' if tokens else ''}"
    print(f"{what:46} {3600 / spent:9,.0f} x real time {spent:7.3f} s {peak:6.0f} MB")
    return (rate > 5 or 3600 / spent >= LEAST_KERNEL) and peak < MOST_MB


def python(rate: float) -> bool:
    """Two minutes of every step scheduled in Python, without patience or series."""
    requests = load(rate, 1 / 30)
    scheduler = Scheduler(
        BlockPool(H100.num_gpu_blocks),
        block_size=H100.settings.block_size,
        max_num_seqs=H100.max_num_seqs,
        max_num_batched_tokens=H100.max_num_batched_tokens,
    )

    def loop() -> None:
        times = requests.arrival_s.tolist()
        now, at, seconds = 0.0, 0, H100.step_time.law.seconds
        while at < len(times) or scheduler.running:
            if not scheduler.running:
                now = max(now, times[at])
            while at < len(times) and times[at] <= now:
                scheduler.submit(EngineSequence("", 500, 200, times[at]))
                at += 1
            step = scheduler.schedule(now)
            now += seconds(step.shape)
            scheduler.complete(step, now)

    spent = cpu(loop)
    print(f"{f'Python, every step scheduled, {rate:g} req/s':46} {120 / spent:9,.0f} x real time {spent:7.3f} s")
    return True


def plan(name: str, what: dict[str, object]) -> bool:
    """The rows of 100 hours; profiles have their own rates."""
    rows = 0

    def make() -> None:
        nonlocal rows
        rows = len(open_columns(spec(100.0, what), 7))

    spent = cpu(make)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{f'plan of 100 h, {name}':46} {rows:9,} requests    {spent:7.3f} s {peak:6.0f} MB")
    return spent < MOST_PLAN_S


FIGURES: dict[str, Callable[[], bool]] = {
    "kernel-5": lambda: compiled(5.0),
    "kernel-12": lambda: compiled(12.0),
    "kernel-50": lambda: compiled(50.0),
    "kernel-50-tokens": lambda: compiled(50.0, tokens=True),
    "python-5": lambda: python(5.0),
    "python-12": lambda: python(12.0),
    "plan-fixed": lambda: plan("5 req/s, fixed lengths", {**FIXED, "arrivals": {"rate": 5.0}}),
    "plan-chat-gateway": lambda: plan("chat-gateway", {"profile": "chat-gateway"}),
    "plan-code-completion": lambda: plan("code-completion", {"profile": "code-completion"}),
    "plan-chat": lambda: plan("chat", {"profile": "chat"}),
}


def main(names: list[str]) -> int:
    if names:
        return 0 if FIGURES[names[0]]() else 1
    missing = why_not(H100.settings)
    if missing is not None:
        print(f"no kernel: {missing}")
    asked = [name for name in FIGURES if missing is None or not name.startswith("kernel")]
    return max(subprocess.run([sys.executable, __file__, name], check=False).returncode for name in asked)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
