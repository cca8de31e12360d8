"""Other tools against the same null server: what they report, beside the truth. Only those on the PATH are run."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tailgate.harness.calibrate.ladder import ITL_MS, TTFT_MS
from tailgate.harness.calibrate.null_server import MODEL
from tailgate.harness.host.child_process import started
from tailgate.workloads.common.errors import UserError

_LIMIT_S: Final = 300.0


@dataclass(frozen=True)
class PeerResult:
    """What a tool reported, in ms; None for what it did not report."""

    tool: str
    chunks_per_s: float
    ttft_p50: float | None
    ttft_p99: float | None
    itl_p50: float | None
    itl_p99: float | None
    problem: str = ""

    def line(self) -> str:
        if self.problem:
            return f"{self.tool}: {self.problem}"
        values = (self.ttft_p50, self.ttft_p99, self.itl_p50, self.itl_p99)
        shown = ["-" if value is None else f"{value:.1f}" for value in values]
        return (
            f"{self.tool} at {self.chunks_per_s:,.0f} chunks/s: TTFT p50/p99 {shown[0]}/{shown[1]} ms "
            f"(truth {TTFT_MS:.0f}/{TTFT_MS:.0f}), ITL {shown[2]}/{shown[3]} ms (truth {ITL_MS:.0f}/{ITL_MS:.0f})"
        )


_PROGRAMS: Final = {"vllm-bench": "vllm", "aiperf": "aiperf"}


async def against(
    names: list[str], url: str, rate: float, tokens: int, folder: Path, tokenizer: str | None
) -> list[PeerResult]:
    """Run each named tool at one load; what is not installed says so in its place."""
    require_known(names)
    return [await _run(name, url, rate, tokens, folder, tokenizer) for name in names]


def require_known(names: list[str]) -> None:
    """Refuse a name that isn't known, and tools of which none is on the PATH."""
    for name in names:
        if name not in _PROGRAMS:
            raise UserError(f"unknown tool {name!r}", where="--against", remedy=f"Known: {', '.join(_PROGRAMS)}.")
    if not any(shutil.which(_PROGRAMS[name]) for name in names):
        wanted = " nor ".join(_PROGRAMS[name] for name in names)
        raise UserError(f"{wanted} is not on the PATH", where="--against", remedy="Install it first.")


async def _run(name: str, url: str, rate: float, tokens: int, folder: Path, tokenizer: str | None) -> PeerResult:
    if shutil.which(_PROGRAMS[name]) is None:
        return _problem(name, rate * tokens, f"{_PROGRAMS[name]!r} is not on the PATH")
    where = folder / name
    where.mkdir()
    count = int(rate * 15)
    if name == "vllm-bench":
        command = [
            "vllm", "bench", "serve", "--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions",
            "--model", MODEL, "--dataset-name", "random", "--random-input-len", "64",
            "--random-output-len", str(tokens), "--num-prompts", str(count), "--request-rate", f"{rate:g}",
            "--ignore-eos", "--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99",
            "--save-result", "--result-dir", str(where), "--result-filename", "result.json",
        ]  # fmt: skip
    else:
        command = [
            "aiperf", "profile", "--model", MODEL, "--url", url, "--endpoint-type", "completions", "--streaming",
            "--request-rate", f"{rate:g}", "--request-count", str(count), "--synthetic-input-tokens-mean", "64",
            "--output-tokens-mean", str(tokens), "--artifact-dir", str(where), "--ui", "simple",
            "--use-server-token-count",  # as the others count
        ]  # fmt: skip
    command += ["--tokenizer", tokenizer] if tokenizer else []
    process = await started(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=where,
            start_new_session=True,
        )
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _LIMIT_S)
    except TimeoutError:
        return _problem(name, rate * tokens, f"did not end within {_LIMIT_S:.0f} s")
    finally:  # too slow, interrupted, or it left children behind that would load the next step
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode:
        last = output.decode(errors="replace").strip().splitlines()[-1:]
        return _problem(name, rate * tokens, f"exit code {process.returncode}: {' '.join(last)[:200]}")
    return _read(name, rate * tokens, where)


def _problem(name: str, chunks: float, text: str) -> PeerResult:
    return PeerResult(name, chunks, None, None, None, None, text)


def _read(name: str, chunks: float, where: Path) -> PeerResult:
    file = next(iter(where.rglob("result.json" if name == "vllm-bench" else "profile_export_aiperf.json")), None)
    if file is None:
        return _problem(name, chunks, "wrote no result")
    result: dict[str, Any] = json.loads(file.read_text())
    if name == "vllm-bench":
        keys = ("p50_ttft_ms", "p99_ttft_ms", "p50_itl_ms", "p99_itl_ms")
        ttft_p50, ttft_p99, itl_p50, itl_p99 = (result.get(key) for key in keys)
        return PeerResult(name, chunks, ttft_p50, ttft_p99, itl_p50, itl_p99)
    ttft, itl = result.get("time_to_first_token", {}), result.get("inter_token_latency", {})
    return PeerResult(name, chunks, ttft.get("p50"), ttft.get("p99"), itl.get("p50"), itl.get("p99"))
