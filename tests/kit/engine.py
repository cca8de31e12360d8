"""The embedded engine as the process it really is."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PRESET = "h100-sxm/qwen2.5-0.5b"


@contextmanager
def engine_process(*flags: str, preset: str = PRESET) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Base URL and process of an engine; ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tailgate.harness.engine", "--preset", preset, "--served-model-name", "sim", *flags],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}", process
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
