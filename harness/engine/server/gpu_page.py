"""The simulated GPUs on a page like a DCGM exporter's, so that a run reads them as it reads any others.

Figures that change are means since the page before, as an exporter's are means over its interval. The memory is what
vLLM takes when it starts: `gpu_memory_utilization` of it.
"""

import time
from typing import Final

from tailgate.harness.engine.config import Resolved
from tailgate.harness.engine.model.power import PowerMeter

PATH: Final = "/simulated_gpus/metrics"
_SHORTEST_S: Final = 0.05  # two readers at once see the same figures
_MIB_OF_GIB: Final = 1024.0


class GpuPage:
    """Renders the page from the engine's meter."""

    def __init__(self, resolved: Resolved, meter: PowerMeter) -> None:
        self._resolved, self._meter = resolved, meter
        self._began = time.monotonic()
        self._last = (self._began, 0.0, 0.0, 0.0)
        self._shown = (meter.idle_w, 0.0, 0.0)

    def render(self) -> str:
        """One line a field and GPU, in DCGM's names and units."""
        now, meter = time.monotonic(), self._meter
        energy = meter.energy_j(now - self._began)
        then, energy_then, busy_then, reading_then = self._last
        if (passed := now - then) >= _SHORTEST_S:
            busy, reading = (meter.busy_s - busy_then) / passed, (meter.reading_s - reading_then) / passed
            self._shown = ((energy - energy_then) / passed, min(busy, 1.0), min(reading, 1.0))
            self._last = (now, energy, meter.busy_s, meter.reading_s)
        power, utilization, reading = self._shown
        settings, gpu = self._resolved.settings, self._resolved.step_time.gpu
        used = settings.gpu_memory_utilization * gpu.memory_gib * _MIB_OF_GIB
        fields = {
            "DCGM_FI_DEV_POWER_USAGE": power,
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 1e3 * energy,  # mJ
            "DCGM_FI_DEV_GPU_UTIL": 100 * utilization,
            "DCGM_FI_DEV_MEM_COPY_UTIL": 100 * reading,
            "DCGM_FI_DEV_FB_USED": used,
            "DCGM_FI_DEV_FB_FREE": gpu.memory_gib * _MIB_OF_GIB - used,
        }
        name = settings.preset.partition("/")[0]
        labels = [
            f'gpu="{index}",UUID="GPU-simulated-{index}",modelName="{name} (simulated)"'
            for index in range(settings.tensor_parallel_size)
        ]
        return "".join(f"{field}{{{label}}} {value:.10g}\n" for field, value in fields.items() for label in labels)
