"""Runs of a gate with known figures, made up in memory: no file is read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tailgate.reports.compare.runs import StoredRun
from tailgate.reports.rundir.json_files import from_json
from tailgate.reports.rundir.manifest import Manifest, TargetRecord
from tailgate.reports.summary.model import Summary
from tailgate.reports.verdicts.gate.policy import WHOLE, Policy, parse_policy
from tailgate.reports.verdicts.gate.runs import GateRecord, Side


def policy(**keys: Any) -> Policy:
    return parse_policy(keys, "test")


def latency(value: float | str | None, n: int = 1000) -> dict[str, Any]:
    """A distribution whose every statistic is `value`."""
    return {"n": n, **dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "p99.9"), value)}


def summary(
    ttft: float | str | None = 100.0, tpot: float | None = 20.0, *, tokens_per_s: float = 1000.0, failed: int = 0,
    requests: int = 1000, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    ok = requests - failed
    return {
        "schema": "tailgate.summary/1", "run": "", "name": "", "valid": True, "invalid_reasons": [],
        "simulated": False, "state": "complete", "verdict": "PASS", "exit_code": 0, "why": "",
        "load": {"loop": "open", "offered_rps": None, "sent_rps": None, "duration_s": 60.0,
                 "requests": {"planned": requests, "ok": ok}, "overloaded": False,
                 "users": {"mean": 8.0, "max": 8}, "in_flight": {"mean": 7.9, "max": 8, "growth": 0.0}},
        "latency_ms": {name: latency(20.0, ok) for name in ("itl", "stall", "normalized_e2e")}
        | {"ttft": latency(ttft, ok), "tpot": latency(tpot, ok), "e2e": latency(500.0, ok)},
        "latency_failed_as_inf_ms": {"ttft": latency(ttft), "ttft_from_send": latency(ttft), "e2e": latency(500.0)},
        "percentile_needs": {},
        "throughput": {"output_tokens_per_s": tokens_per_s, "requests_per_s": 10.0},
        "slo": {}, "errors": {"share": failed / requests, "failed": failed, "kinds": []},
        "cost": {}, "energy": {}, "server": {}, "gpu": {}, "findings": [],
        "checks": [{"name": "dispatch_lag", "status": "ok", "value": 1.0, "bound": 5.0, "unit": "ms",
                    "why": "p99 of the dispatch lag", "remedy": "Lower the rate."}],
        "streaming": {"arrivals": 0}, "connections": {"sent": requests, "new": 1, "set_up_ms": latency(1.0)},
        "workload": {"mismatched": 0, "prompt_mismatched": 0},
        "client": {"injectors": 1, "stamp": "kernel"},
    } | more  # fmt: skip


def good(requests: int) -> dict[str, Any]:
    """An SLO that says what is good, of which there were so many."""
    return {"good": requests, "good_means": ["ttft < 500 ms"]}


def phase(mean_ms: float) -> dict[str, Any]:
    """A phase of the server's work that always takes as long."""
    return {"n": 1000.0, "mean_ms": mean_ms, "p50_ms": [mean_ms] * 3, "p99_ms": [mean_ms] * 3}


def gpus(slowdown: float | None = None, clock_mhz: float | None = None) -> dict[str, Any]:
    """One GPU: how much of the window it was slowed down for, and its clock."""
    gpu = {"gpu": "GPU-0", "sm_clock_mhz": clock_mhz, "energy_source": "power"}
    return {"count": 1, "slowdown_share_max": slowdown, "gpus": [gpu]}


def finding(kind: str) -> dict[str, Any]:
    """A finding about nothing else."""
    return {"kind": kind, "says": "", "figures": {}, "remedy": ""}


def bill(per_million_output: float) -> dict[str, Any]:
    """A cost of which only one figure is known."""
    words = dict.fromkeys(("label", "model", "server", "gpu", "price_source"), "")
    return {**words, "gpus": 1, "per_million_output": per_million_output}


class MadeRun(StoredRun):
    """A run whose `figures` (as `summary.json` holds them) a test may change; its summary is made of them."""

    def __init__(self, figures: dict[str, Any], multi_token_share: float | None, **attributes: Any) -> None:
        vars(self).update(attributes, figures=figures, multi_token_share=multi_token_share)

    figures: dict[str, Any]

    @property
    def summary(self) -> Summary:  # type: ignore[override]
        return typed(self.figures)


def typed(figures: dict[str, Any]) -> Summary:
    """As it is read from `summary.json`."""
    summary: Summary = from_json(Summary, figures)
    return summary


def run(
    side: Side, pair: int | None, figures: Mapping[str, Any] | None = None, *, point: str = WHOLE,
    multi_token_share: float | None = 0.0, **manifest: Any,
) -> MadeRun:  # fmt: skip
    defaults: dict[str, Any] = {
        "run": f"{side}{pair}", "state": "complete", "plan_hash": f"plan{pair}", "workload_hash": "w", "loop": "open",
        "t0_unix_ns": (pair or 0) * 10**12, "target": TargetRecord(kind="url", model="m", version="1"),
    }  # fmt: skip
    return MadeRun(
        dict(figures) if figures is not None else summary(), multi_token_share, path=Path(f"pair{pair}-{side}"),
        label=side, point=point, pair=pair, manifest=Manifest(**(defaults | manifest)),
    )  # fmt: skip


def pairs(ratios: Sequence[float], *, point: str = WHOLE, **candidate: Any) -> list[MadeRun]:
    """Pairs whose TTFT and TPOT differ by `ratios`; each pair has its own level."""
    found = []
    for number, ratio in enumerate(ratios, 1):
        level = 100.0 + 7 * number
        found.append(run("baseline", number, summary(level, level / 5), point=point))
        figures = summary(level * ratio, level / 5 * ratio)
        found.append(run("candidate", number, figures | candidate, point=point))
    return found


def noisy(change: float, spread: float, n: int, seed: int = 0) -> list[float]:
    """Ratios around 1 + change that differ just as much as runs of this coefficient of variation make pairs differ."""
    noise = np.random.default_rng(seed).standard_normal(n)
    noise = (noise - noise.mean()) / noise.std(ddof=1) * spread * np.sqrt(2)
    return [float((1 + change) * np.exp(x)) for x in noise]


def campaign(n: int, **more: Any) -> GateRecord:
    runs = tuple((f"pair{k}-{side}", side, WHOLE, k) for k in range(1, n + 1) for side in ("baseline", "candidate"))
    return GateRecord(runs=runs, seconds=60.0 * n, dollars=0.5 * n, command=("tailgate", "gate"), **more)
