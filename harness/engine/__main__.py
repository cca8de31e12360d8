"""`python -m tailgate.harness.engine --preset h100-sxm/llama-3.1-8b`: the embedded engine as a server process.

Prints one line of JSON, `{"port": N}`, when it is ready. Ends on SIGTERM or SIGINT, and when the process
that started it dies (unless `--detach`).
"""

import argparse
import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
from typing import Final

from aiohttp import web

from tailgate.harness.config.arguments import Parser, number
from tailgate.harness.engine.address import read_address, refuse_in_real_time
from tailgate.harness.engine.config import Settings, resolve
from tailgate.harness.engine.realtime import Engine
from tailgate.harness.engine.server.api import application
from tailgate.workloads.common.errors import UserError

_PR_SET_PDEATHSIG = 1
_BACKLOG = 4096

_NAME: Final = "tailgate engine"


def main(argv: list[str] | None = None, name: str = _NAME, usage: str | None = None) -> int:
    """Serve until told to stop; the exit code is 2 for a wrong command line. Help and errors say `name`."""
    flags = parser(name, usage)
    try:
        address = read_address(flags.parse_args(argv).preset)
        refuse_in_real_time(address)
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    given = vars(flags.parse_args([*address.flags, *(sys.argv[1:] if argv is None else argv)]))
    given["preset"] = address.preset
    host, port, detach = given.pop("host"), given.pop("port"), given.pop("detach")
    if not detach:
        _end_with_parent()
    try:
        engine_settings = Settings(**given)
        return asyncio.run(_serve(engine_settings, host, port))
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2


async def _serve(settings: Settings, host: str, port: int) -> int:
    resolved = resolve(settings)
    if why := resolved.step_time.shape.unverified:
        print(f"{_NAME}: the memory of {resolved.model_name} is not verified: {why}", file=sys.stderr, flush=True)
    engine = Engine(resolved)
    runner = web.AppRunner(application(engine), handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=_BACKLOG, shutdown_timeout=0.5)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error  # asyncio's repeats the address
        raise UserError(f"can't listen on {host}:{port}: {reason}", where="--port") from error
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    gc.collect()
    gc.freeze()  # what start-up made is never garbage: a full collection would stall a step
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    stepping = asyncio.create_task(engine.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stepping, stopping], return_when=asyncio.FIRST_COMPLETED)
    if stepping.done():
        stepping.result()  # an engine that fell over falls over loudly
    stepping.cancel()
    await runner.cleanup()
    return 0


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies; it may have died before we asked."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def parser(name: str = _NAME, usage: str | None = None, kind: type[Parser] = Parser) -> argparse.ArgumentParser:
    made = kind(
        prog=name,
        usage=usage,
        description="Serve the embedded engine, which behaves like vLLM without a GPU. The flags are vLLM's.",
    )
    add, count = made.add_argument, number(int, 1)
    add("--preset", required=True, help="GPU/MODEL, e.g. h100-sxm/llama-3.1-8b or l4/./folder-of-config.json.")
    add("--host", default="127.0.0.1")
    add("--port", type=number(int, 0, 65535), default=0, help="The port; 0: any free one.")
    add("--detach", action="store_true", help="Go on when the process that started this one ends.")
    add("--served-model-name")
    add("--max-model-len", type=_context, help="Tokens that a request may have; auto: as many as the cache holds.")
    add("--max-num-seqs", type=count)
    add("--max-num-batched-tokens", type=count)
    add("--block-size", type=count, default=16)
    add("--num-gpu-blocks-override", type=count)
    add("--gpu-memory-utilization", type=number(float, 0.01, 1.0), default=0.92)
    add("--tensor-parallel-size", type=count, default=1)
    add("--dtype", choices=["auto", "bfloat16", "float16", "half"], default="auto")
    add("--quantization", choices=["fp8", "fp4", "mxfp4", "int8", "int4", "awq", "gptq"])
    add("--kv-cache-dtype", choices=["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"], default="auto")
    add("--enforce-eager", action=argparse.BooleanOptionalAction, default=False)
    add("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    add("--scheduling-policy", choices=["fcfs", "priority"], default="fcfs")
    add("--max-num-queued-reqs", type=number(int, 0))
    add("--long-prefill-token-threshold", type=number(int, 0), default=0, help="The most tokens of a prompt in a step.")
    add("--enable-chunked-prefill", action=argparse.BooleanOptionalAction, default=True)
    add("--enable-per-request-metrics", action=argparse.BooleanOptionalAction, default=False)
    add("--enable-prompt-tokens-details", action=argparse.BooleanOptionalAction, default=False)
    add("--seed", type=int, default=0)
    jitter = number(float, 0.0, 5.0)
    add("--jitter", type=jitter, default=0.0, help="Standard deviation of a step's log duration, e.g. 0.05.")
    spread, seconds = number(float, 0.0, 5.0), number(float, 0.0)
    add("--launch-spread", type=spread, default=0.0, help="Standard deviation of a launch's log step time, e.g. 0.02.")
    add("--drift", type=spread, default=0.0, help="The same of a slow wandering, drawn each minute.")
    add("--stall-every", type=seconds, default=0.0, help="Seconds between stalls; 0: none.")
    add("--stall-seconds", type=seconds, default=0.0, help="How long each stall lasts.")
    add("--slow-start", type=seconds, default=0.0, help="Seconds after the start in which steps take longer.")
    add(
        "--natural-output-tokens",
        type=count,
        default=200,
        help="Median length of answers that the model ends.",
    )
    return made


def _context(text: str) -> int:
    return -1 if text in ("auto", "-1") else number(int, 1)(text)


if __name__ == "__main__":
    sys.exit(main())
