"""Runs the command line as a person would: a process of its own, its output and exit code read."""

import json
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIM = "sim:h100-sxm/llama-3.1-8b"
# A load that ends within two seconds.
SHORT = ["--rate", "40/s", "--duration", "1s", "--prompt-tokens", "32", "--output-tokens", "8"]


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.out)


Tailgate = Callable[..., Said]


def command(*arguments: str | Path) -> list[str]:
    return [
        sys.executable,
        "-c",
        "from tailgate.harness.cli import main; raise SystemExit(main())",
        *map(str, arguments),
    ]


def free_port() -> int:
    """A loopback port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
