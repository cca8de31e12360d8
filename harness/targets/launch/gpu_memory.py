"""GPU memory over a deployment's life: before the start, when it is up, and back again after its end."""

import asyncio
import time
from typing import Final

from tailgate.harness.targets.base import Life
from tailgate.harness.telemetry.gpu.memory import Memory, MemoryReader

_NEAR_BYTES: Final = 128 * 2**20  # contexts of others come and go
_BACK_S: Final = 20.0
_LOOK_S: Final = 0.2


class MemoryOverLife:
    """Keeps `Life.vram`: UUID -> total, before_start, loaded, before_stop, after_stop, in bytes."""

    def __init__(self, source: MemoryReader, life: Life) -> None:
        self._source = source
        self._life = life

    @classmethod
    async def open(cls, gpus: str | None, life: Life) -> "MemoryOverLife | None":
        """Start looking at these GPUs (indices or UUIDs; empty: all; None: none); None where nothing is to be seen."""
        source = None if gpus is None else await MemoryReader.open(gpus)
        return None if source is None else cls(source, life)

    async def look(self, when: str) -> Memory:
        """Record the memory in use now under the name `when`."""
        now = await self._source.now()
        for uuid, memory in now.items():
            figures = self._life.vram.setdefault(uuid, {"total": memory["total_bytes"]})
            figures[when] = memory["used_bytes"]
        return now

    async def until_back(self, within_s: float = _BACK_S) -> None:
        """Wait until the GPUs have the memory again that the server took; `Life` says how long that took."""
        mine = {
            uuid: figures["before_start"]
            for uuid, figures in self._life.vram.items()
            if "before_start" in figures and figures.get("before_stop", 0.0) > figures["before_start"] + _NEAR_BYTES
        }
        began = time.monotonic()
        while True:
            now = await self.look("after_stop")
            extra_bytes = {u: now[u]["used_bytes"] - was for u, was in mine.items() if u in now}
            missing = {uuid: extra for uuid, extra in extra_bytes.items() if extra > _NEAR_BYTES}
            took = time.monotonic() - began
            if not missing or took > within_s:
                break
            await asyncio.sleep(_LOOK_S)
        if mine and extra_bytes:
            self._life.memory_back_s = None if missing else took
        for uuid, extra in missing.items():
            self._life.notices.append(
                f"GPU {uuid} still had {extra / 2**30:.1f} GiB more in use than before the start, "
                f"{took:.0f} s after the server had ended"
            )

    async def close(self) -> None:
        await self._source.close()
