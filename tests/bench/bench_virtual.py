"""The engine on a virtual clock: how fast it is, and whether the engine in real time does the same. Prints two tables.

`python tests/bench/bench_virtual.py [SECONDS]`: the first table is CPU time of simulations against the time that they
cover. The second is a run of SECONDS (30) over HTTP beside the same plan in virtual time; on a calm machine TTFT and
ITL p50 and p99 agree within 3 % or 1 ms.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tailgate.harness.config.run_spec import RunSpec, build
from tailgate.harness.load.listener import Watcher
from tailgate.harness.run.execute import execute
from tailgate.harness.run.virtual.execute import planned
from tailgate.harness.run.virtual.simulate import simulate
from tailgate.reports.build import build as build_report

PRESET = "h100-sxm/llama-3.1-8b"
LENGTHS = {"prompt_tokens": 500, "output_tokens": 200}
SPEEDS: dict[str, tuple[str, dict[str, Any]]] = {
    "5 req/s": (PRESET, {**LENGTHS, "arrivals": {"process": "poisson", "rate": "5/s"}}),
    "12 req/s": (PRESET, {**LENGTHS, "arrivals": {"process": "poisson", "rate": "12/s"}}),
    "chat-gateway, 4 req/s": (PRESET, {"profile": "chat-gateway", "arrivals": {"rate": "4/s"}}),
    "4 replicas, 48 req/s": (
        f"{PRESET}?replicas=4&router=least-in-flight",
        {**LENGTHS, "arrivals": {"process": "poisson", "rate": "48/s"}},
    ),
    "20 users": (PRESET, {**LENGTHS, "users": 20}),
    "80 users, 4 replicas": (f"{PRESET}?replicas=4", {**LENGTHS, "users": 80}),
}


def spec(sim: str, workload: dict[str, Any], clock: str, seconds: float) -> RunSpec:
    target = {"sim": sim, "clock": clock}
    return build({"target": target, "workload": {**workload, "duration": seconds}, "seed": 3}, "bench", Path())


def speed(sim: str, workload: dict[str, Any]) -> float:
    """Simulated seconds a second of CPU, plan included."""
    began = time.process_time()
    given, deployment, plan, _ = planned(spec(sim, workload, "virtual", 300))
    run = simulate(plan, deployment, given)
    return run.ended_ns / 1e9 / (time.process_time() - began)


def both(folder: Path, seconds: float) -> dict[str, Any]:
    """The summaries of a run in real time and of the same in virtual time."""
    workload = {**SPEEDS["12 req/s"][1], "warmup": 5}
    found = {}
    for clock in ("real", "virtual"):
        run_dir = asyncio.run(execute(spec(PRESET, workload, clock, seconds), folder / clock, [], Watcher()))
        found[clock] = build_report(run_dir)
    return found


def main() -> int:
    print(f"{'simulated':30} times real time")
    for name, (sim, workload) in SPEEDS.items():
        print(f"{name:30} {speed(sim, workload):15,.0f}")
    with tempfile.TemporaryDirectory() as name:
        found = both(Path(name), float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
    print(f"\n{'ms':10} {'real':>9} {'virtual':>9} {'apart':>8}")
    worst = 0.0
    for metric in ("ttft", "itl"):
        for at in ("p50", "p99"):
            real, virtual = (found[clock].latency_ms[metric].statistic(at) for clock in ("real", "virtual"))
            if real is None or virtual is None:
                print(f"{metric} {at:5} too few requests: measure for longer")
                continue
            apart = abs(real - virtual)
            worst = max(worst, min(apart / virtual / 0.03, apart / 1.0))
            print(f"{metric} {at:5} {real:9.3f} {virtual:9.3f} {apart:8.3f}")
    print("within 3 % or 1 ms" if worst <= 1 else "NOT within 3 % or 1 ms")
    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
