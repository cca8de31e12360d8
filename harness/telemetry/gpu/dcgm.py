"""GPUs on other machines, through a DCGM exporter (or any Prometheus endpoint with its field names).

The same columns as NVML's; fields that the exporter isn't configured for are named once.
Field identifiers: https://docs.nvidia.com/datacenter/dcgm/latest/dcgm-api/dcgm-api-field-ids.html.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp

from tailgate.harness.config.masking import without_credentials
from tailgate.harness.host.http_client import http_client
from tailgate.harness.telemetry.gpu.sources import GpusFound, Latest, latest
from tailgate.harness.telemetry.metrics_page import read_page
from tailgate.harness.telemetry.periodic import ended, every
from tailgate.harness.telemetry.prometheus_text import PageReader, SeriesKey
from tailgate.harness.telemetry.sample_store import TidySamples
from tailgate.loadgen.injector.http.endpoint import public_name
from tailgate.reports.rundir.telemetry import GPU_SCHEMA

_MIB = 2.0**20
# DCGM's field -> (our name, factor).
FIELDS: Final = {
    "DCGM_FI_DEV_POWER_USAGE_INSTANT": ("power_w", 1.0),
    "DCGM_FI_DEV_POWER_USAGE": ("power_w", 1.0),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("energy_j", 1e-3),
    "DCGM_FI_DEV_SM_CLOCK": ("sm_clock_mhz", 1.0),
    "DCGM_FI_DEV_MEM_CLOCK": ("mem_clock_mhz", 1.0),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": ("throttle_reasons", 1.0),
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": ("throttle_reasons", 1.0),
    "DCGM_FI_DEV_GPU_UTIL": ("utilization", 0.01),
    "DCGM_FI_DEV_MEM_COPY_UTIL": ("mem_utilization", 0.01),
    "DCGM_FI_DEV_FB_USED": ("mem_used_bytes", _MIB),
    "DCGM_FI_DEV_FB_FREE": ("mem_free_bytes", _MIB),
    "DCGM_FI_DEV_FB_RESERVED": ("mem_reserved_bytes", _MIB),
    "DCGM_FI_DEV_GPU_TEMP": ("temperature_c", 1.0),
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": ("ecc_errors", 1.0),
    "DCGM_FI_PROF_PCIE_RX_BYTES": ("pcie_rx_bytes_per_s", 1.0),
    "DCGM_FI_PROF_PCIE_TX_BYTES": ("pcie_tx_bytes_per_s", 1.0),
}
_OF_INSTANCES: Final = ("mem_used_bytes", "mem_free_bytes", "mem_reserved_bytes")
_NEEDED: Final = ("power_w", "energy_j", "sm_clock_mhz", "throttle_reasons", "utilization", "mem_used_bytes")


class DcgmScraper:
    """Scrapes one exporter, known by the URL of its metrics page, once a second."""

    def __init__(self, url: str, spool: Path, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._headers = dict(headers or {})
        self._samples = TidySamples(GPU_SCHEMA, spool)
        self._reader = PageReader()
        self._labels: dict[str, dict[str, str]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._t0 = 0
        self._failing = False
        self.faults: list[dict[str, Any]] = []
        self.now: Latest = {}
        self._counted: dict[str, float] = {}

    async def start(self) -> GpusFound:
        self._session = http_client(self._headers)
        page = await self._page()
        if isinstance(page, str):
            return GpusFound(problem=f"{public_name(self._url)}: {page}")
        gpus: dict[str, dict[str, Any]] = {}
        have = set[str]()
        for gpu, name, _value, labels in page:
            have.add(name)
            facts: dict[str, Any] = {
                "uuid": gpu,
                "name": labels.get("modelName", ""),
                "index": labels.get("gpu"),
                "missing": {},
            }
            if "/MIG-" in gpu:
                facts["parent"] = gpu.partition("/MIG-")[0]
            gpus.setdefault(gpu, facts)
        if not gpus:
            return GpusFound(problem=f"{public_name(self._url)} has no DCGM_FI_* metrics: it is no DCGM exporter")
        answer = GpusFound(gpus=list(gpus.values()))
        if lacking := [name for name in _NEEDED if name not in have]:
            fields = [next(f for f, (ours, _) in FIELDS.items() if ours == name) for name in lacking]
            answer.notices.append(f"the DCGM exporter doesn't export {', '.join(fields)}: no {', '.join(lacking)}")
        return answer

    async def go(self, t0_unix_ns: int) -> None:
        self._t0 = t0_unix_ns
        self._task = asyncio.create_task(every(1.0, self._scrape, at_once=True))

    async def stop(self) -> None:
        if self._task is not None:
            await ended(self._task)
            await self._scrape()
        if self._session is not None:
            await self._session.close()

    def write(self, path: Path) -> None:
        self._samples.write(path)

    async def _scrape(self) -> None:
        now = time.time_ns()
        page = await self._page()
        if isinstance(page, str):
            if not self._failing:
                self.faults.append({"unix_ns": now, "gpu": "", "text": f"the DCGM exporter can't be read: {page}"})
            self._failing = True
            return
        self._failing = False
        if page:
            self.now = latest((gpu, name, value) for gpu, name, value, _ in page)
            # The exporter shows a reading until it has the next one: a counter that stands still is no sample.
            fresh = [one for one in page if one[1] != "energy_j" or self._counted.get(one[0]) != one[2]]
            self._counted |= {gpu: value for gpu, name, value, _ in page if name == "energy_j"}
            gpus, names, values, _labels = zip(*fresh, strict=True) if fresh else ((), (), (), ())
            self._samples.append([[now - self._t0] * len(fresh), gpus, names, values])

    async def _page(self) -> list[tuple[str, str, float, dict[str, str]]] | str:
        """(GPU, our name, value, labels) of every known field; or why there is none."""
        assert self._session is not None
        try:
            keys, values = self._reader.read(await read_page(self._session, self._url))
        except (aiohttp.ClientError, TimeoutError) as error:
            return without_credentials(f"{type(error).__name__}: {error}")  # some name the whole URL
        except ValueError as error:
            return str(error)
        return self._known_fields(keys, values)

    def _known_fields(self, keys: list[SeriesKey], values: list[float]) -> list[tuple[str, str, float, dict[str, str]]]:
        fields: dict[tuple[str, str], tuple[str, str, float, dict[str, str]]] = {}
        for key, value in zip(keys, values, strict=True):
            if key.name not in FIELDS:
                continue
            ours, factor = FIELDS[key.name]
            labels = self._labels.setdefault(key.labels, json.loads(key.labels))
            gpu = labels.get("UUID") or f"{labels.get('Hostname', '')}/{labels.get('gpu', '')}"
            # The exporter repeats the whole GPU's figures under each of its instances; only memory is theirs.
            if (instance := labels.get("GPU_I_ID")) and ours in _OF_INSTANCES:
                gpu = f"{gpu}/MIG-{instance}"
            fields.setdefault((gpu, ours), (gpu, ours, value * factor, labels))  # the first field of a name wins
        return list(fields.values())
