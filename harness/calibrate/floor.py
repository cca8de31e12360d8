"""The floor under a calibration: a client in plain C that only receives (plain_client.c), under the same load.

Nothing measures better on this machine now. It is compiled on demand, where there is a C compiler.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tailgate.harness.host.child_process import output_of

_SOURCE: Final = Path(__file__).with_name("plain_client.c")
_COMPILE_S: Final = 60.0
_GRACE_S: Final = 30.0  # beyond the load's own length


@dataclass(frozen=True)
class FloorStep:
    """What the plain client measured under one load, ms, and what it cost."""

    ttft_p50: float
    ttft_p99: float
    itl_p50: float
    itl_p99: float
    cpu_us_a_chunk: float


@dataclass(frozen=True)
class PlainClient:
    """The compiled client."""

    program: Path

    async def measure(self, url: str, rate: float, tokens: int, seconds: float) -> FloorStep | None:
        """``rate`` requests/s of ``tokens`` tokens each to a null server at ``url``; None where that failed."""
        words = (str(self.program), str(urlsplit(url).port), f"{rate:g}", f"{seconds:g}", str(tokens))
        printed = await output_of(*words, within_s=seconds + _GRACE_S)
        if not printed:
            return None
        found = json.loads(printed)
        cost = 1e6 * found["cpu_s"] / max(found["chunks"], 1)
        return FloorStep(found["ttft_p50"], found["ttft_p99"], found["itl_p50"], found["itl_p99"], cost)


@asynccontextmanager
async def plain_client() -> AsyncIterator[PlainClient | None]:
    """The client, for as long as the context lasts; None where there is no C compiler, or it failed."""
    with tempfile.TemporaryDirectory(prefix="tailgate-") as folder:
        program = Path(folder) / "plain_client"
        yield PlainClient(program) if await _compiled(program) else None


async def _compiled(program: Path) -> bool:
    compiler = await asyncio.to_thread(shutil.which, "cc")
    if compiler is None:
        return False
    return await output_of(compiler, "-O2", "-o", str(program), str(_SOURCE), within_s=_COMPILE_S) is not None
