"""The memory of all GPUs, told whenever it is asked (a line on stdin).

A process of its own because NVML may hang, and because it is needed while there is no run yet and after it:
before a server is started, when it is up, and until its memory has come back. It ends with its stdin.
"""

import asyncio
import json
import sys
from typing import Final

import pynvml

from tailgate.harness.host.child_process import LineProcess
from tailgate.harness.telemetry.gpu import nvml
from tailgate.harness.telemetry.gpu.sources import nvml_is_installed

_PATIENCE_S: Final = 20.0
_END_S: Final = 5.0

# UUID -> total_bytes, used_bytes
Memory = dict[str, dict[str, float]]


def main() -> int:
    try:
        nvml.open_nvml()
    except pynvml.NVMLError:
        return 0
    for _ in sys.stdin:
        print(json.dumps(nvml.memory_of_all()), flush=True)
    return 0


class MemoryReader:
    """Asks that process. Use `open`."""

    def __init__(self, process: LineProcess, wanted: frozenset[str]) -> None:
        self._process = process
        self._wanted = wanted
        self._silent = False

    @classmethod
    async def open(cls, gpus: str) -> "MemoryReader | None":
        """Start it for these GPUs (indices or UUIDs, comma-separated; empty: all); None where there is no NVML."""
        if not nvml_is_installed():
            return None
        process = await LineProcess.spawn("tailgate.harness.telemetry.gpu.memory")
        return cls(process, frozenset(gpu for gpu in gpus.split(",") if gpu))

    async def now(self) -> Memory:
        """The memory of every GPU and MIG instance; empty where NVML doesn't say, or hangs."""
        if self._silent:
            return {}
        await self._process.send(b"")
        try:
            gpus: dict[str, dict[str, float | str]] | None = await asyncio.wait_for(
                self._process.receive(), _PATIENCE_S
            )
        except TimeoutError:
            gpus = None
        if gpus is None:
            self._silent = True
            return {}
        return {
            uuid: {key: float(gpu[key]) for key in ("total_bytes", "used_bytes")}
            for uuid, gpu in gpus.items()
            if not self._wanted or self._wanted & {uuid, str(gpu["index"]), str(gpu.get("parent"))}
        }

    async def close(self) -> None:
        await self._process.close(_END_S)


if __name__ == "__main__":
    sys.exit(main())
