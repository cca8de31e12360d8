"""What this machine is and which versions take part in measuring: the client's side of a run's fingerprint."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any


def host_facts() -> dict[str, Any]:
    """What this machine is: the client's side of the fingerprint. No host name: it may be a secret."""
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of what takes part in measuring, and whether streams are read by the extension or in Python."""
    from tailgate.loadgen.injector.http import AVAILABLE

    packages = {
        name: metadata.version(name) for name in ("tailgate", "locust", "httptools", "pyarrow", "numpy", "aiohttp")
    }
    return {**packages, "reads": "compiled" if AVAILABLE else "python"}


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
