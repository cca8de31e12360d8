"""Unit tests start no process and open no port; one that does fails and is told where it belongs."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STARTS = frozenset(("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"))
CONNECTS = frozenset(("socket.bind", "socket.connect", "socket.sendto"))


class Guard:
    """Hears of what the interpreter is about to do, and forbids some of it while a unit test runs."""

    def __init__(self) -> None:
        self.on = False
        self.violations: list[str] = []  # what product code, or a thread, may have swallowed

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and (event in STARTS or event in CONNECTS):
            self.violations.append(f"{event}{arguments!r:.200}")
            pytest.fail(self.message)

    @property
    def message(self) -> str:
        return f"a unit test starts no process and opens no port; this belongs in tests/system: {self.violations[0]}"


GUARD = Guard()
sys.addaudithook(GUARD)  # can't be removed again


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Fixtures of every scope included: they are made within the first test that wants them.

    pytest calls this for the tests of other folders too, where they are collected together.
    """
    GUARD.violations.clear()
    GUARD.on = Path(__file__).parent in item.path.parents
    try:
        return (yield)
    finally:
        GUARD.on = False


@pytest.fixture(autouse=True)
def _no_process_and_no_port() -> Iterator[None]:
    yield
    assert not GUARD.violations, GUARD.message
