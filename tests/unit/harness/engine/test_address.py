"""What may stand behind `sim:`, and what of it there is in real time."""

import pytest

from tailgate.harness.engine.__main__ import main
from tailgate.harness.engine.address import SimAddress, read_address, refuse_in_real_time
from tailgate.harness.engine.virtual.faults import ReplicaFault
from tailgate.workloads.common.errors import UserError


def test_an_address_says_how_the_engine_is_deployed() -> None:
    text = "l4/qwen2.5-0.5b?replicas=3&router=random&fault=kill 2 at 60s back 45s&fault=stop+1+at+5s&jitter=0.1"
    faults = (ReplicaFault("stop", 1, 5.0), ReplicaFault("kill", 2, 60.0, 45.0))
    assert read_address(text) == SimAddress("l4/qwen2.5-0.5b", ("--jitter", "0.1"), 3, "random", faults)
    assert read_address("l4/qwen2.5-0.5b") == SimAddress("l4/qwen2.5-0.5b")


def test_flags_of_the_engine_are_read_as_its_command_line_has_them() -> None:
    address = read_address("a/b?enable-prefix-caching=false&max_num_seqs=4&enable-per-request-metrics=true")
    assert set(address.flags) == {
        "--no-enable-prefix-caching", "--max-num-seqs", "4", "--enable-per-request-metrics",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("unknown=1", "unknown key 'unknown'"),
        ("replica=4", "did you mean 'replicas'"),
        ("replicas=four", "'four' is not a whole number"),
        ("replicas=2&replicas=3", "given 2 times"),
        ("router=random", "a router needs several replicas"),
        ("fault=kill 1", "is no fault"),
        ("autoscale=waiting > 5 for 30s", "how many replicas"),
        ("autoscale=waiting > 5 for 30s, most 1", "most must be greater"),
        ("autoscale=waitin > 5 for 30s, most 3", "did you mean 'waiting'"),
        ("autoscale=waiting > 5 for 30s, most 3, below 6 for 1s", "come for ever"),
        ("pipeline-parallel-size=2", "does not simulate pipeline-parallel-size"),
    ],
)
def test_what_there_is_not_is_refused_by_name(query: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_address(f"l4/qwen2.5-0.5b?{query}")


@pytest.mark.parametrize("query", ["replicas=2", "fault=kill 1 at 5s", "autoscale=waiting > 5 for 30s, most 3"])
def test_real_time_refuses_what_only_the_virtual_clock_has(query: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="virtual clock only"):
        refuse_in_real_time(read_address(f"l4/qwen2.5-0.5b?{query}"))
    assert main(["--preset", f"l4/qwen2.5-0.5b?{query}"]) == 2
    assert "virtual clock only" in capsys.readouterr().err
