"""Machines with addresses of their own, and a network between them that fails: Linux network namespaces.

The target is on each machine's own loopback, so that only what master and workers say to each other is on the wire.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kit.command import free_port
from tests.kit.machines import Distributed, serving

pytestmark = pytest.mark.alone

MASTER = "10.231.0.1"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def why_not() -> str:
    if shutil.which("ip") is None:
        return "no `ip` command (iproute2) on this machine"
    name = f"tg{os.getpid()}try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces can't be made here: {tried.stderr.strip()}"
    ip("netns", "del", name)
    return ""


@pytest.fixture(scope="module")
def machines() -> Iterator[list[str]]:
    """Three namespaces: the master's, and two workers' with a link to it each."""
    if reason := why_not():
        pytest.skip(reason)
    spaces = [f"tg{os.getpid()}{role}" for role in ("m", "a", "b")]
    with contextlib.ExitStack() as stack:
        for space in spaces:
            ip("netns", "add", space)
            stack.callback(ip, "netns", "del", space)
            ip("-n", space, "link", "set", "lo", "up")
        ip("-n", spaces[0], "addr", "add", f"{MASTER}/32", "dev", "lo")
        for k, space in enumerate(spaces[1:], 1):
            ip("link", "add", f"tgm{k}", "netns", spaces[0], "type", "veth", "peer", "name", "tgw", "netns", space)
            ip("-n", spaces[0], "addr", "add", f"10.231.{k}.1/24", "dev", f"tgm{k}")
            ip("-n", space, "addr", "add", f"10.231.{k}.2/24", "dev", "tgw")
            ip("-n", spaces[0], "link", "set", f"tgm{k}", "up")
            ip("-n", space, "link", "set", "tgw", "up")
            ip("-n", space, "route", "add", "default", "via", f"10.231.{k}.1")
        yield spaces


def within(space: str) -> list[str]:
    return ["ip", "netns", "exec", space]


@contextlib.contextmanager
def targets(exact: Path, machines: list[str]) -> Iterator[int]:
    """The exact server on every machine's loopback, on one port."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        for space in machines:
            stack.enter_context(serving(exact, "--port", str(port), within=within(space)))
        yield port


def load(port: int, rate: int, seconds: int) -> list[str]:
    return [
        "--target", f"http://127.0.0.1:{port}", "--rate", f"{rate}/s", "--duration", f"{seconds}s",
        "--prompt-tokens", "16", "--output-tokens", "3", "--seed", "5", "--no-settle",
    ]  # fmt: skip


def distributed(tmp_path: Path, machines: list[str], flags: list[str], alone_s: int) -> Distributed:
    master, *workers = machines
    return Distributed(
        tmp_path,
        flags,
        bind=MASTER,
        master_within=within(master),
        worker_within=[within(w) for w in workers],
        alone_s=alone_s,
        token="a secret of this run",
    )


def test_machines_with_addresses_of_their_own_send_the_plan(exact: Path, tmp_path: Path, machines: list[str]) -> None:
    with targets(exact, machines) as port, distributed(tmp_path, machines, load(port, 200, 4), 20) as run:
        ended = run.ended()
    records = ended.requests()
    assert records["index"].to_pylist() == ended.plan()["index"].to_pylist()
    assert set(records["status"].to_pylist()) == {"ok"}
    assert set(records["injector"].to_pylist()) == {0, 1}


def test_nothing_is_lost_when_the_network_between_fails_for_a_while(
    exact: Path, tmp_path: Path, machines: list[str]
) -> None:
    with targets(exact, machines) as port, distributed(tmp_path, machines, load(port, 50, 18), 30) as run:
        run.until_spooled(0, 5_000)
        run.until_spooled(1, 5_000)
        ip("-n", machines[0], "link", "set", "tgm1", "down")
        time.sleep(7)  # the outage itself, longer than Locust takes to count a worker as missing
        ip("-n", machines[0], "link", "set", "tgm1", "up")
        ended = run.ended()
    told = [event["text"] for event in ended.events if event["kind"] == "worker"]
    assert any("is missing" in text for text in told)
    assert any("is back" in text for text in told)
    records = ended.requests()
    assert records["index"].to_pylist() == ended.plan()["index"].to_pylist()
    assert set(records["status"].to_pylist()) == {"ok"}  # through the outage, too
    assert ended.check("lost_rows")["value"] == 0
    assert [code for code, _ in ended.workers] == [0, 0]


def test_a_worker_behind_a_broken_network_is_given_up_and_keeps_its_records(
    exact: Path, tmp_path: Path, machines: list[str]
) -> None:
    with targets(exact, machines) as port, distributed(tmp_path, machines, load(port, 50, 6), 8) as run:
        run.until_spooled(0, 5_000)
        run.until_spooled(1, 5_000)
        ip("-n", machines[0], "link", "set", "tgm2", "down")
        try:
            ended = run.ended()
        finally:
            ip("-n", machines[0], "link", "set", "tgm2", "up")
    assert ended.code == 4
    assert any("did not come back" in event["text"] for event in ended.events)
    assert ended.check("lost_rows")["status"] == "fail"
    cut_off = [text for code, text in ended.workers if code == 1]
    assert len(cut_off) == 1 and "kept in" in cut_off[0]
