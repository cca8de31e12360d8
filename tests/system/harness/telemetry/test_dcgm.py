"""GPU figures through a DCGM exporter: the same columns as NVML's."""

import asyncio
from pathlib import Path

import pyarrow.parquet as pq
from tests.kit.scripted import ScriptedServer, whole

from tailgate.harness.telemetry.gpu.dcgm import DcgmScraper
from tailgate.harness.telemetry.gpu.sources import GpusFound
from tailgate.harness.telemetry.prometheus_text import PageReader

LABELS = 'gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H100",Hostname="node1"'
PAGE = f"""\
# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{{{LABELS}}} 412.5
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{LABELS}}} 5000
DCGM_FI_DEV_SM_CLOCK{{{LABELS}}} 1980
DCGM_FI_DEV_GPU_UTIL{{{LABELS}}} 87
DCGM_FI_DEV_FB_USED{{{LABELS}}} 1024
DCGM_FI_DEV_FB_USED{{{LABELS},GPU_I_ID="3",GPU_I_PROFILE="1g.10gb"}} 256
DCGM_FI_DEV_XID_ERRORS{{{LABELS}}} 0
"""


def scrape(tmp_path: Path, page: str, status: int = 200) -> tuple[GpusFound, list[dict[str, object]], list[str]]:
    async def scenario() -> tuple[GpusFound, list[str]]:
        with ScriptedServer(lambda peer, _request: peer.send(whole(page.encode(), status))) as server:
            scraper = DcgmScraper(f"{server.url}/metrics", tmp_path / "gpu.arrows")
            found = await scraper.start()
            if found.gpus:
                await scraper.go(0)
        await scraper.stop()
        scraper.write(tmp_path / "gpu.parquet")
        return found, [str(f["text"]) for f in scraper.faults]

    found, faults = asyncio.run(scenario())
    return found, pq.read_table(tmp_path / "gpu.parquet").to_pylist(), faults


def test_missing_fields_are_named_once(tmp_path: Path):
    found, _, _ = scrape(tmp_path, PAGE)
    assert [g["uuid"] for g in found.gpus] == ["GPU-a", "GPU-a/MIG-3"] and found.gpus[0]["name"] == "NVIDIA H100"
    (notice,) = found.notices
    assert "DCGM_FI_DEV_CLOCKS_EVENT_REASONS" in notice and "throttle_reasons" in notice


def test_an_exporter_that_goes_away_is_a_fault_once(tmp_path: Path):
    _, _, faults = scrape(tmp_path, PAGE)
    assert len(faults) == 1 and "can't be read" in faults[0]


def test_a_page_without_dcgm_fields_is_no_exporter(tmp_path: Path):
    found, rows, _ = scrape(tmp_path, "go_threads 7\n")
    assert found.problem is not None and "no DCGM exporter" in found.problem and rows == []
    assert "HTTP 404" in str(scrape(tmp_path, "", 404)[0].problem)


def test_a_password_of_its_url_is_in_no_message(tmp_path: Path):
    async def found(url: str) -> str:
        scraper = DcgmScraper(url, tmp_path / "gpu.arrows")
        problem = (await scraper.start()).problem
        await scraper.stop()
        return str(problem)

    with ScriptedServer(lambda peer, _request: peer.send(whole(b"go_threads 7\n"))) as server:
        told = [
            asyncio.run(found(url.replace("//", "//ann:hunter2@")))
            for url in (f"{server.url}/metrics?key=hunter2", "http://h:x/m")
        ]
    assert "no DCGM exporter" in told[0] and not any("hunter2" in text for text in told)


def test_a_whole_gpus_figures_under_its_instances_count_once(tmp_path: Path):
    one, two = (f'{LABELS},GPU_I_ID="{k}"' for k in (1, 2))
    page = "".join(
        f"DCGM_FI_DEV_POWER_USAGE{{{of}}} 250\nDCGM_FI_DEV_FB_USED{{{of}}} {mib}\n"
        for of, mib in ((one, 10), (two, 20))
    )
    scraper = DcgmScraper("http://unused", tmp_path / "gpu.arrows")
    fields = [field[:3] for field in scraper._known_fields(*PageReader().read(page))]
    assert fields == [
        ("GPU-a", "power_w", 250.0),
        ("GPU-a/MIG-1", "mem_used_bytes", 10 * 2**20),
        ("GPU-a/MIG-2", "mem_used_bytes", 20 * 2**20),
    ]
    found, _, _ = scrape(tmp_path, page)
    assert [gpu.get("parent") for gpu in found.gpus] == [None, "GPU-a", "GPU-a"]
