"""What a spec says of its workload is checked against its target, and says which window is measured."""

from pathlib import Path
from typing import Any

import pytest
from tests.kit.command import SIM

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.run.preflight import check_content, needs_context, with_context
from tailgate.harness.run.prepare import measure_end_ns
from tailgate.harness.targets.base import Identity
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import make_plan

TARGET = {"kind": "sim", "sim": SIM.removeprefix("sim:")}

LENGTHS = {"prompt_tokens": 40, "output_tokens": 6, "arrivals": {"rate": "30/s"}, "duration": "1s"}


def identity(**more: Any) -> Identity:
    told = {"urls": ("http://127.0.0.1:1",), "model": "m", "models": ("m",), "dialect": "vllm", "version": "1"}
    return Identity(**{**told, "max_model_len": 4096, **more})


def spec(workload: dict[str, Any], **more: Any) -> RunSpec:
    return RunSpec.model_validate({"target": TARGET, "workload": workload, **more})


@pytest.mark.parametrize(
    ("fingerprint", "args"),
    [({"config": {"speculative_config": {"method": "ngram"}}}, {}), ({}, {"speculative_config": {"model": "d"}})],
)
def test_random_content_is_refused_where_the_target_decodes_speculatively(
    fingerprint: dict[str, Any], args: dict[str, Any]
) -> None:
    asked = RunSpec.model_validate({"target": {**TARGET, "args": args}, "workload": {**LENGTHS, "content": "random"}})
    with pytest.raises(UserError, match="no draft model can guess random tokens"):
        check_content(asked, identity(fingerprint=fingerprint))


def test_a_grammar_in_extra_with_a_forced_length_is_refused() -> None:
    extra = {"response_format": {"type": "json_object"}}
    with pytest.raises(UserError, match="can't be followed by more tokens"):
        check_content(spec(LENGTHS, extra=extra), identity())
    check_content(spec(LENGTHS, extra=extra, output="natural"), identity())
    check_content(spec(LENGTHS, extra={"response_format": {"type": "text"}}), identity())


def test_a_limit_of_ones_own_and_the_rule_error_are_left_alone() -> None:
    own = spec({**LENGTHS, "over_context": "clip", "max_context": 100})
    strict = spec(LENGTHS)
    for one in (own, strict):
        assert not needs_context(one) and with_context(one, identity()) is one
    fitted = spec({**LENGTHS, "over_context": "clip"})
    assert with_context(fitted, identity()).workload.max_context == 4096
    assert with_context(fitted, identity(max_model_len=None)).workload.max_context is None


def csv(folder: Path) -> Path:
    """A request each 100 ms for a minute, in columns of other names."""
    rows = "\n".join(f"{k * 100},{30 + k % 3},{5}" for k in range(600))
    (folder / "mine.csv").write_text(f"ms,in,out\n{rows}\n")
    return folder / "mine.csv"


def traced(file: Path, **trace: Any) -> RunSpec:
    named = {"time": "ms", "prompt_tokens": "in", "output_tokens": "out"}
    return spec({"trace": {"file": file, "format": "csv", "columns": named, "time_unit": "ms", **trace}})


@pytest.mark.parametrize(
    ("trace", "seconds"),
    [
        ({"start": "10s", "duration": "20.05s"}, 20.05),  # the slice's own end, not its last request's
        ({"duration": "20s", "speed": 4}, 5.0),
        ({"duration": "20s", "rate": "40/s", "rate_by": "speed"}, 5.0),
        ({}, 60.0),  # a mean gap behind the last arrival: n requests, n gaps
    ],
)
def test_the_window_of_a_sliced_trace_is_the_slice(tmp_path: Path, trace: dict[str, Any], seconds: float) -> None:
    asked = traced(csv(tmp_path), **trace)
    end = measure_end_ns(asked, make_plan(asked.workload, 1))
    assert end / 1e9 == pytest.approx(seconds, abs=1e-6)


def test_requests_end_the_window_only_where_they_come_before_the_duration() -> None:
    few, many = ({**LENGTHS, "requests": n} for n in (10, 10_000))
    plan = make_plan(spec(few).workload, 1)
    assert plan.table.num_rows == 10 and measure_end_ns(spec(few), plan) < 1_000_000_000
    assert measure_end_ns(spec(many), make_plan(spec(many).workload, 1)) == 1_000_000_000
