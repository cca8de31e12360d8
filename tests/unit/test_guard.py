"""The guard of the unit tests (tests/unit/conftest.py) notices what it must."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from tests.unit.conftest import GUARD


def spawned() -> None:
    os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})


def bound() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))


def connected() -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", 9))


@pytest.mark.parametrize(
    "breach", [lambda: subprocess.run([sys.executable, "-c", ""], check=False), os.fork, spawned, bound, connected]
)
def test_a_process_or_a_port_fails_a_unit_test(breach: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="belongs in tests/system"):
        breach()
    assert len(GUARD.violations) == 1  # told again when the test ends, if somebody has swallowed it
    GUARD.violations.clear()
