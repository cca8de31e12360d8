"""Raising the load step by step against the null server, and what each step showed."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import aiohttp

from tailgate.harness.calibrate.floor import FloorStep, PlainClient
from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.load.listener import Watcher
from tailgate.harness.run.execute import execute
from tailgate.reports.rundir.collect import collect
from tailgate.reports.summary.summary import write_summary
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.import_paths import python_module

TTFT_MS: Final = 50.0
ITL_MS: Final = 20.0
TOKENS: Final = 50  # an answer of 50 tokens takes 1.03 s: a step is in full swing soon
CHUNK_RATES: Final = (1_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000)
REQUEST_RATES: Final = (100, 250, 500, 1_000, 2_000)
# A step is honest when the run is VALID, no request failed, and all of these are known and near the truth.
_BOUNDS_MS: Final = {"ttft p50": 1.0, "ttft p99": 3.0, "itl p50": 0.2, "itl p99": 1.0}
_LATE_SERVER_MS: Final = 1.0
# A step of a low rate is longer: its p99 wants about 300 independent requests.
_LEAST_REQUESTS: Final = 400


@dataclass(frozen=True)
class LadderStep:
    """One load, and how far its figures were from the truth. Errors and lags in ms; None: too few to tell."""

    chunks_per_s: float
    requests_per_s: float
    honest: bool
    why: str
    ttft_error_p50: float | None
    ttft_error_p99: float | None
    itl_error_p50: float | None
    itl_error_p99: float | None
    # Half of what the load generator itself leaves uncertain of each (docs/metrics.md): it needs no known truth.
    ttft_own_p50: float | None
    ttft_own_p99: float | None
    itl_own_p50: float | None
    itl_own_p99: float | None
    dispatch_lag_p99: float | None
    receive_lag_p99: float | None
    cpu_share: float | None
    server_late_p99: float
    floor: FloorStep | None = None  # a plain C client's, where it can be compiled

    @property
    def tells_all(self) -> bool:
        """Whether every error that there is to know is known."""
        of_one_token = self.chunks_per_s == self.requests_per_s
        itl = () if of_one_token else (self.itl_error_p50, self.itl_error_p99)
        return None not in (self.ttft_error_p50, self.ttft_error_p99, *itl)


@asynccontextmanager
async def null_server() -> AsyncIterator[str]:
    """The URL of a null server that lives as long as the context."""
    process = await asyncio.create_subprocess_exec(
        *python_module("tailgate.harness.calibrate.null_server"), "--ttft-ms", str(TTFT_MS), "--itl-ms", str(ITL_MS),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is ours to hear: the server is needed until the load has ended
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{json.loads(await process.stdout.readline())['port']}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def measure(url: str, rate: float, tokens: int, seconds: float, injectors: int) -> LadderStep:
    """One step: ``rate`` requests/s of ``tokens`` tokens each, for so long that its tails are known.

    Waits that hang together tell less than as many independent ones: then it is measured again, three times as long.
    """
    length_s = max(seconds, _LEAST_REQUESTS / rate)
    step = await _measured(url, rate, tokens, length_s, injectors)
    if step.tells_all:
        return step
    return await _measured(url, rate, tokens, 3 * length_s, injectors)


async def _measured(url: str, rate: float, tokens: int, length_s: float, injectors: int) -> LadderStep:
    spec = RunSpec.model_validate(
        {
            "name": "calibrate",
            "target": {"url": url},
            "settle": "none",
            "workload": {
                "prompt_tokens": 64,
                "output_tokens": tokens,
                "arrivals": {"process": "poisson", "rate": rate},
                "duration": length_s,
                "warmup": 1.5,
            },
            "injectors": injectors,
            "telemetry": {"host": False},
        }
    )
    with tempfile.TemporaryDirectory(prefix="tailgate-") as folder:
        run_dir = await execute(spec, Path(folder) / "run", ["tailgate", "calibrate"], Watcher())
        collect(run_dir)
        summary = write_summary(run_dir).to_json()
    return _judged(rate, tokens, summary, await _lateness(url))


async def _lateness(url: str) -> float:
    """p99 of how late the null server sent tokens since it was last asked, ms."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/lateness") as answer:
        return float((await answer.json(content_type=None))["p99"])


def _own(latency: dict[str, Any], percentile: str) -> float | None:
    ends = latency.get(f"{percentile}_error")
    return None if ends is None else (ends[1] - ends[0]) / 2


def _judged(rate: float, tokens: int, summary: dict[str, Any], server_late: float) -> LadderStep:
    latency, client = summary["latency_ms"], summary["client"]
    errors = {f"ttft {q}": _error(latency["ttft_from_send"][q], TTFT_MS) for q in ("p50", "p99")}
    if tokens > 1:
        errors |= {f"itl {q}": _error(latency["itl"][q], ITL_MS) for q in ("p50", "p99")}
    broken = [check["name"] for check in summary["checks"] if check["status"] == "fail"]
    unknown = [name for name, error in errors.items() if error is None]
    off = [name for name, error in errors.items() if error is not None and error > _BOUNDS_MS[name]]
    why = ""
    if broken:
        why = ", ".join(broken)
    elif failed := summary["errors"]["failed"]:
        why = f"{failed:,} requests failed"
    elif off:
        why = "the null server itself was late" if server_late > _LATE_SERVER_MS else "off the truth"
    elif unknown:
        why = f"too few requests to know {', '.join(unknown)}"
    return LadderStep(
        chunks_per_s=rate * tokens,
        requests_per_s=rate,
        honest=not why,
        why=why,
        ttft_error_p50=errors["ttft p50"],
        ttft_error_p99=errors["ttft p99"],
        itl_error_p50=errors.get("itl p50"),
        itl_error_p99=errors.get("itl p99"),
        ttft_own_p50=_own(latency["ttft_from_send"], "p50"),
        ttft_own_p99=_own(latency["ttft_from_send"], "p99"),
        itl_own_p50=_own(latency["itl"], "p50"),
        itl_own_p99=_own(latency["itl"], "p99"),
        dispatch_lag_p99=client["dispatch_lag_ms"]["p99"],
        receive_lag_p99=client["receive_lag_ms"]["p99"],
        cpu_share=client["cpu_fraction_max"],
        server_late_p99=server_late,
    )


def _error(measured: float | None, truth: float) -> float | None:
    return None if measured is None else abs(measured - truth)


async def ladder(
    url: str, kind: str, seconds: float, injectors: int, done: Callable[[LadderStep], None],
    client: PlainClient | None = None,
) -> list[LadderStep]:  # fmt: skip
    """Steps of one kind (chunks or requests) upwards, until one is not honest: the last is, or the ladder ends.

    After each, `client` shows the floor under the same load.
    """
    steps: list[LadderStep] = []
    for value in CHUNK_RATES if kind == "chunks" else REQUEST_RATES:
        rate, tokens = (value / TOKENS, TOKENS) if kind == "chunks" else (value, 1)
        step = await measure(url, rate, tokens, seconds, injectors)
        if client is not None:
            step = replace(step, floor=await client.measure(url, rate, tokens, seconds))
            await _lateness(url)  # the server's own, which the next step is not to have
        steps.append(step)
        done(step)
        if not step.honest:
            break
    if not steps[0].honest:
        least = steps[0].chunks_per_s if kind == "chunks" else steps[0].requests_per_s
        raise UserError(
            f"not even {least:,.0f} {kind}/s could be measured honestly: {steps[0].why}",
            where="calibrate",
            remedy="Is another process keeping the cores busy?",
        )
    return steps


def highest(steps: list[LadderStep]) -> LadderStep:
    return steps[-1] if steps[-1].honest else steps[-2]
