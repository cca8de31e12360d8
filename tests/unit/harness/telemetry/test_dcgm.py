"""A DCGM exporter's fields as our columns."""

from pathlib import Path

from tailgate.harness.telemetry.gpu.dcgm import DcgmScraper
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


def test_fields_become_our_names_and_units_and_instances_stand_apart(tmp_path: Path):
    scraper = DcgmScraper("http://unused", tmp_path / "gpu.arrows")
    fields = scraper._known_fields(*PageReader().read(PAGE))
    assert [(gpu, name, value) for gpu, name, value, _ in fields] == [
        ("GPU-a", "power_w", 412.5),
        ("GPU-a", "energy_j", 5.0),
        ("GPU-a", "sm_clock_mhz", 1980.0),
        ("GPU-a", "utilization", 0.87),
        ("GPU-a", "mem_used_bytes", 1024 * 2**20),
        ("GPU-a/MIG-3", "mem_used_bytes", 256 * 2**20),
    ]
