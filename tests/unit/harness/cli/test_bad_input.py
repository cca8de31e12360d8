"""Mistakes that are found before anything is started."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tailgate.harness.config.run_spec import build
from tailgate.harness.engine.__main__ import parser as engine_parser
from tailgate.workloads.common.errors import UserError


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("{url: 'http://x', sim: h100-sxm/llama-3.1-8b}", "url"),
        ("{url: 'http://x', args: {max-num-seqs: 4}}", "args"),
        ("{kind: vllm, model: m, url: 'http://x'}", "url"),
    ],
)
def test_a_target_of_two_kinds_is_refused(target: str, word: str) -> None:
    data = {"target": yaml.safe_load(target), "workload": {"profile": "chat-gateway", "arrivals": {"rate": 1}}}
    with pytest.raises(UserError, match=word):
        build(data, "spec", Path())


@pytest.mark.parametrize(
    ("workload", "word"),
    [
        ({"trace": {"file": "t.csv"}, "prompt_tokens": 32}, "prompt_tokens"),
        ({"trace": {"file": "t.csv"}, "arrivals": {"process": "poisson"}}, "arrivals.rate"),
        ({"prompt_tokens": 0, "output_tokens": 1}, "prompt_tokens"),
        ({"prompt_tokens": 8, "output_tokens": "1.5"}, "output_tokens"),
    ],
)
def test_what_would_be_dropped_or_bent_is_refused(workload: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        build({"target": {"url": "http://x"}, "workload": {"duration": 1, **workload}}, "spec", Path())


@pytest.mark.parametrize(
    "flags",
    [
        ["--max-num-seqs", "-1"], ["--block-size", "0"], ["--gpu-memory-utilization", "5"], ["--jitter", "-1"],
        ["--port", "99999"], ["--tensor-parallel-size", "0"], ["--natural-output-tokens", "0"], ["--max-num-seq", "4"],
    ],
)  # fmt: skip
def test_the_engine_refuses_what_it_cannot_be(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        engine_parser().parse_args(["--preset", "h100-sxm/llama-3.1-8b", *flags])
    assert ended.value.code == 2
    assert flags[0] in capsys.readouterr().err
