"""What sampling GPUs costs: eight of them, through the real pynvml, against the tests' library. Prints figures.

The bound is 1 % of a core; exit code 1 beyond it. The library answers at once: what a real driver takes comes on top.
`python tests/bench/bench_gpu_sampler.py [SECONDS]`
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tailgate.harness.telemetry.gpu.sources import NvmlProcess

SOURCE = Path(__file__).parents[1] / "kit" / "fake_nvml.c"
GPUS, MOST = 8, 0.01


async def share(folder: Path, seconds: float) -> float:
    """CPU of the sampler's process while it samples, as a share of a core."""
    sampler = NvmlProcess(folder / "gpu.arrows", "", ())
    found = await sampler.start()
    assert len(found.gpus) == GPUS and sampler.pid is not None
    await sampler.go(time.time_ns())
    process = psutil.Process(sampler.pid)
    busy, began = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(seconds)
    cpu_s, wall_s = sum(process.cpu_times()[:2]) - busy, time.monotonic() - began
    await sampler.stop()
    return cpu_s / wall_s


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
        (folder / "script").write_text("".join(f"uuid=GPU-{n} name=F power=300 energy0=0\n" for n in range(GPUS)))
        os.environ |= {
            "LD_LIBRARY_PATH": name,
            "FAKE_NVML_SCRIPT": str(folder / "script"),
            "FAKE_NVML_T0": f"{time.time()}",
        }
        found = asyncio.run(share(folder, seconds))
    print(f"GPU sampler, {GPUS} GPUs: {found:.2%} of a core over {seconds:.0f} s (bound {MOST:.0%})")
    return int(found > MOST)


if __name__ == "__main__":
    sys.exit(main())
