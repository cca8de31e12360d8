"""When a series of rounds counts as steady."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.harness.config.run_spec import build
from tailgate.harness.run.prepare import warms_up
from tailgate.harness.run.warmup import WINDOW, WarmupResult, is_steady


@pytest.mark.parametrize(
    ("rounds", "verdict"),
    [
        ([1.0] * (WINDOW - 1), False),
        ([1.0] * WINDOW, True),
        ([9.0, 4.0, *[1.0] * WINDOW], True),
        ([2.0, 1.8, 1.6, 1.4, 1.2, 1.0], False),
        ([1.0, 1.0, 1.0, 1.9, 1.0, 1.0], False),
        ([1.0, 1.01, 0.99, 1.02, 1.0, 0.98], True),
    ],
)
def test_steady_means_no_trend_and_no_late_hiccup(rounds: list[float], verdict: bool):
    assert is_steady(rounds) is verdict


@given(st.lists(st.floats(0.01, 10), min_size=WINDOW, max_size=20), st.sampled_from([0.25, 2.0, 1024.0]))
def test_steadiness_knows_no_unit(rounds: list[float], factor: float):
    assert is_steady(rounds) == is_steady([r * factor for r in rounds])


@pytest.mark.parametrize(
    ("target", "workload", "settle", "warms"),
    [
        ({"url": "http://h"}, {}, "auto", False),
        ({"url": "http://h"}, {"warmup": "5s"}, "auto", True),
        ({"url": "http://h"}, {"warmup": "5s"}, "none", False),
        ({"url": "http://h"}, {}, "always", True),
        ({"kind": "vllm", "model": "m"}, {}, "auto", True),
        ({"kind": "command", "command": "serve", "url": "http://h"}, {}, "auto", True),
        ({"kind": "command", "command": "serve", "url": "http://h"}, {}, "none", False),
        ({"sim": "h100-sxm/llama-3.1-8b"}, {"warmup": "5s"}, "auto", False),
        ({"sim": "h100-sxm/llama-3.1-8b"}, {}, "always", True),
    ],
)
def test_a_stranger_s_server_is_warmed_up_only_where_the_spec_says_so(
    target: dict[str, Any], workload: dict[str, Any], settle: str, warms: bool
) -> None:
    load = {"prompt_tokens": 8, "output_tokens": 8, "arrivals": {"rate": "1/s"}, "duration": "1s", **workload}
    assert warms_up(build({"target": target, "workload": load, "settle": settle}, "test", Path.cwd())) is warms


def test_what_a_warm_up_took_is_said() -> None:
    assert WarmupResult(True, (0.5, 0.7), 8).text == "warmed up with 8 requests in 1 s: its pace is steady"
    assert "not steady" in WarmupResult(False, (180.0,), 1_200).text
