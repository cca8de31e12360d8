"""The memory of all GPUs, told whenever it is asked (a line on stdin).

A process of its own because NVML may hang, and because it is needed while there is no run yet and after it:
before a server is started, when it is up, and until its memory has come back. It ends with its stdin.
"""

import asyncio
import json
import sys
from typing import Final

import pynvml

from tailgate.harness.telemetry.gpu import nvml
from tailgate.harness.telemetry.gpu.sources import nvml_is_installed
from tailgate.workloads.common.import_paths import python_module

_PATIENCE_S: Final = 20.0
_END_S: Final = 5.0

# UUID -> total_bytes, used_bytes
Memory = dict[str, dict[str, float]]


def main() -> int:
    """Answer until stdin ends."""
    try:
        nvml.open_nvml()
    except pynvml.NVMLError:
        return 0
    for _ in sys.stdin:
        print(json.dumps(nvml.memory_of_all()), flush=True)
    return 0


class MemoryReader:
    """Asks that process. Use `open`."""

    def __init__(self, process: asyncio.subprocess.Process, wanted: frozenset[str]) -> None:
        self._process = process
        self._wanted = wanted
        self._silent = False

    @classmethod
    async def open(cls, gpus: str) -> "MemoryReader | None":
        """Start it; None where there is no NVML.

        Args:
            gpus: indices or UUIDs, comma-separated; empty: all.
        """
        if not nvml_is_installed():
            return None
        process = await asyncio.create_subprocess_exec(
            *python_module("tailgate.harness.telemetry.gpu.memory"),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return cls(process, frozenset(one for one in gpus.split(",") if one))

    async def now(self) -> Memory:
        """Every GPU's and MIG instance's memory; empty where NVML doesn't tell, or hangs."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if self._silent or stdin is None or stdout is None:
            return {}
        try:
            stdin.write(b"\n")
            await stdin.drain()
            line = await asyncio.wait_for(stdout.readline(), _PATIENCE_S)
        except (ConnectionError, TimeoutError):
            line = b""
        if not line:
            self._silent = True
            return {}
        told: dict[str, dict[str, float | str]] = json.loads(line)
        return {
            uuid: {key: float(one[key]) for key in ("total_bytes", "used_bytes")}
            for uuid, one in told.items()
            if not self._wanted or self._wanted & {uuid, str(one["index"]), str(one.get("parent"))}
        }

    async def close(self) -> None:
        """End it by the end of its input."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


if __name__ == "__main__":
    sys.exit(main())
