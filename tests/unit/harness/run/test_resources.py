"""What this machine must have is looked at before any load."""

import resource
import sys

import pytest

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.host.linux_only import require_linux
from tailgate.harness.run import preflight
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import make_plan


def checked(limit: int, monkeypatch: pytest.MonkeyPatch, ports: int = 30_000, **workload: object) -> list[str]:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    monkeypatch.setattr(preflight, "_local_ports", lambda: ports)
    spec = RunSpec.model_validate(
        {"target": {"url": "http://x"}, "workload": {"prompt_tokens": 8, "output_tokens": 200, **workload}}
    )
    return preflight.check_resources(spec, make_plan(spec.workload, 0))


def test_more_users_than_descriptors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="80 users need as many connections, and 68 can be open: the limit") as caught:
        checked(100, monkeypatch, users=80, duration=5.0)
    assert "ulimit -n" in caught.value.remedy
    assert checked(200, monkeypatch, users=80, duration=5.0) == []


def test_more_users_than_local_ports_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="too few local ports"):
        checked(1_000_000, monkeypatch, ports=1_000, users=1_001, duration=5.0)


def test_an_open_loop_that_would_need_more_even_of_a_fast_server_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    # 60 requests/s that take 1 s at 5 ms a token: 60 in flight.
    load = {"arrivals": {"process": "constant", "rate": 60.0}, "duration": 5.0}
    (warning,) = checked(80, monkeypatch, **load)
    assert "60 requests are in flight at once, and 48 connections" in warning and "ulimit -n" in warning
    assert checked(1_024, monkeypatch, **load) == []


def test_another_system_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match=r"Linux only .* this is darwin"):
        require_linux()
