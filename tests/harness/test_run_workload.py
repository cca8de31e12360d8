"""What a spec says of its workload, all the way into a run: content, context, classes, slices of traces."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from command import SHORT, SIM, Said, Tailgate

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.run.manifest import measure_end_ns
from tailgate.harness.run.preflight import check_content, needs_context, with_context
from tailgate.harness.targets.base import Identity
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import make_plan

MEASURED = (0, 4)  # on a busy machine a run may rightly be INVALID
TARGET = {"kind": "sim", "sim": SIM.removeprefix("sim:")}
LENGTHS = {"prompt_tokens": 40, "output_tokens": 6, "arrivals": {"rate": "30/s"}, "duration": "1s"}


def identity(**more: Any) -> Identity:
    told = {"urls": ("http://127.0.0.1:1",), "model": "m", "models": ("m",), "dialect": "vllm", "version": "1"}
    return Identity(**{**told, "max_model_len": 4096, **more})


def spec(workload: dict[str, Any], **more: Any) -> RunSpec:
    return RunSpec.model_validate({"target": TARGET, "workload": workload, **more})


def run(tailgate: Tailgate, folder: Path, workload: dict[str, Any], **more: Any) -> tuple[Said, Path]:
    (folder / "spec.yaml").write_text(yaml.safe_dump({"target": TARGET, "workload": workload, **more}))
    return tailgate("run", "spec.yaml", "--out", "run", "--quiet"), folder / "run"


def manifest(run_dir: Path) -> dict[str, Any]:
    return dict(json.loads((run_dir / "manifest.json").read_text()))


# --- content ---------------------------------------------------------------------------------------------


def test_prompts_come_from_a_text_file_of_ones_own(tailgate: Tailgate, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("".join(f"Line {k} of a text that nobody else has. " for k in range(600)))
    said, out = run(tailgate, tmp_path, {**LENGTHS, "content": {"file": "own.txt"}})
    assert said.code in MEASURED, said.err
    corpus = tailgate("run", "--target", SIM, *SHORT, "--out", "other", "--quiet")
    assert corpus.code in MEASURED
    own, other = manifest(out)["content"], manifest(tmp_path / "other")["content"]
    assert own["kind"] == other["kind"] == "corpus" and own["digest"] != other["digest"]
    requests = pq.read_table(out / "requests.parquet")
    assert requests["prompt_tokens"].unique().to_pylist() == [40]


def test_random_content_is_sent_where_it_is_asked_for(tailgate: Tailgate, tmp_path: Path) -> None:
    said = tailgate("run", "--target", SIM, *SHORT, "--content", "random", "--out", "run", "--quiet")
    assert said.code in MEASURED, said.err
    assert manifest(tmp_path / "run")["content"]["kind"] == "random"
    requests = pq.read_table(tmp_path / "run" / "requests.parquet")
    assert requests["prompt_tokens"].to_pylist() == requests["prompt_tokens_planned"].to_pylist()


def test_random_content_as_text_is_refused_and_leaves_no_run(tailgate: Tailgate, tmp_path: Path) -> None:
    said = tailgate("run", "--target", SIM, *SHORT, "--content", "random", "--prompt", "text", "--out", "run")
    assert said.code == 2 and "can only be sent as token ids" in said.err
    assert not (tmp_path / "run").exists()


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


def test_prompts_as_text_have_exactly_the_planned_length(tailgate: Tailgate, tmp_path: Path) -> None:
    said = tailgate(
        "run", "--target", SIM, "--rate", "40/s", "--duration", "1s", "--prompt-tokens", "uniform(20, 900)",
        "--output-tokens", "4", "--prompt", "text", "--out", "run", "--quiet",
    )  # fmt: skip
    assert said.code in MEASURED, said.err
    requests = pq.read_table(tmp_path / "run" / "requests.parquet")
    assert requests["prompt_tokens"].to_pylist() == requests["prompt_tokens_planned"].to_pylist()


# --- replayed bodies -------------------------------------------------------------------------------------


def log(folder: Path, **body: Any) -> list[str]:
    """Flags that replay a log of 12 chats, 20 a second."""
    lines = []
    for k in range(12):
        request = {"model": "gpt", "messages": [{"role": "user", "content": "7" * (10 + 5 * k)}], **body}
        usage = {"prompt_tokens": 8, "completion_tokens": 3 + k % 2}
        lines.append(json.dumps({"timestamp": 1_700_000_000 + k / 20, "request": request, "usage": usage}))
    (folder / "log.jsonl").write_text("\n".join(lines))
    return ["run", "--target", SIM, "--trace", "log.jsonl", "--content", "replay", "--out", "run"]


def test_a_logs_own_bodies_are_sent(tailgate: Tailgate, tmp_path: Path) -> None:
    said = tailgate(*log(tmp_path), "--endpoint", "chat", "--quiet")
    assert said.code in MEASURED, said.err
    requests = pq.read_table(tmp_path / "run" / "requests.parquet")
    assert requests["status"].unique().to_pylist() == ["ok"]
    counted = requests["prompt_tokens"].to_pylist()
    assert [b - a for a, b in pairwise(counted)] == [5] * 11  # the bodies', not the usage's
    assert requests["output_tokens"].to_pylist() == [3, 4] * 6


def test_bodies_of_another_endpoint_are_refused_with_the_line(tailgate: Tailgate, tmp_path: Path) -> None:
    said = tailgate(*log(tmp_path))
    assert said.code == 2 and "line 1" in said.err and "--endpoint" in said.err
    assert not (tmp_path / "run").exists()


def test_bodies_with_a_grammar_need_natural_lengths(tailgate: Tailgate, tmp_path: Path) -> None:
    flags = [*log(tmp_path, response_format={"type": "json_object"}), "--endpoint", "chat", "--quiet"]
    said = tailgate(*flags)
    assert said.code == 2 and "--natural-output" in said.err
    said = tailgate(*flags, "--natural-output")
    assert said.code in MEASURED, said.err


def test_bodies_that_ask_for_several_answers_are_refused(tailgate: Tailgate, tmp_path: Path) -> None:
    said = tailgate(*log(tmp_path, n=2), "--endpoint", "chat")
    assert said.code == 2 and "several answers" in said.err


# --- the target's context --------------------------------------------------------------------------------


def test_a_profiles_lengths_are_fitted_to_the_targets_context(tailgate: Tailgate, tmp_path: Path) -> None:
    target = {**TARGET, "args": {"max-model-len": 2048}}
    workload = {"profile": "chat-long", "duration": "2s"}
    said, out = run(tailgate, tmp_path, workload, target=target, seed=2)
    assert said.code in MEASURED, said.err
    plan = pq.read_table(out / "plan.parquet").to_pandas()
    assert len(plan) and (plan["prompt_tokens"] + plan["output_tokens"]).max() <= 2048
    told = manifest(out)
    assert told["spec"]["workload"]["max_context"] == 2048
    assert any("scaled by" in notice for notice in told["notices"])


def test_a_limit_of_ones_own_and_the_rule_error_are_left_alone() -> None:
    own = spec({**LENGTHS, "over_context": "clip", "max_context": 100})
    strict = spec(LENGTHS)
    for one in (own, strict):
        assert not needs_context(one) and with_context(one, identity()) is one
    fitted = spec({**LENGTHS, "over_context": "clip"})
    assert with_context(fitted, identity()).workload.max_context == 4096
    assert with_context(fitted, identity(max_model_len=None)).workload.max_context is None


# --- classes ---------------------------------------------------------------------------------------------


CLASSES = {
    "chat": {"weight": 1, "prompt_tokens": 40, "output_tokens": 6, "slo": {"ttft": "p50 < 9s"}, "tier": "gold"},
    "batch": {"weight": 1, "prompt_tokens": 90, "output_tokens": 12, "tier": "bulk", "priority": 5},
}
MIX = {"classes": CLASSES, "arrivals": {"rate": "60/s"}, "duration": "1s"}


def test_figures_and_objectives_split_by_class_and_price_tier(tailgate: Tailgate, tmp_path: Path) -> None:
    said, out = run(tailgate, tmp_path, MIX)
    assert said.code in MEASURED, said.err
    summary = json.loads((out / "summary.json").read_text())
    assert {group["name"] for group in summary["splits"]["class"]} == {"chat", "batch"}
    tiers = {group["name"]: group["n"] for group in summary["splits"]["tier"]}
    by_class = {group["name"]: group["n"] for group in summary["splits"]["class"]}
    assert tiers == {"gold": by_class["chat"], "bulk": by_class["batch"]}
    (objective,) = summary["slo"]["thresholds"]
    assert objective["result"] == "met" and "chat" in json.dumps(objective)


def test_a_classs_objective_that_can_not_be_read_is_refused_before_the_run(tailgate: Tailgate, tmp_path: Path) -> None:
    wrong = {**CLASSES, "chat": {**CLASSES["chat"], "slo": {"ttft": "p99 < soon"}}}
    said, out = run(tailgate, tmp_path, {**MIX, "classes": wrong})
    assert said.code == 2 and "classes.chat.slo" in said.err
    assert not out.exists()


def test_an_adapter_that_is_not_served_is_refused_with_those_that_are(tailgate: Tailgate, tmp_path: Path) -> None:
    tuned = {**CLASSES, "batch": {**CLASSES["batch"], "adapter": "lora-b"}}
    said, out = run(tailgate, tmp_path, {**MIX, "classes": tuned})
    assert said.code == 2 and "'lora-b'" in said.err and "It serves: meta-llama" in said.err
    assert not out.exists()


# --- slices of traces ------------------------------------------------------------------------------------


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


def test_flags_name_columns_unit_and_rate_of_a_trace(tailgate: Tailgate, tmp_path: Path) -> None:
    csv(tmp_path)
    said = tailgate(
        "run", "--target", SIM, "--trace", "mine.csv", "--columns", "time=ms", "--columns", "prompt_tokens=in",
        "--columns", "output_tokens=out", "--time-unit", "ms", "--rate", "40/s", "--rate-by", "speed",
        "--requests", "40", "--out", "run", "--quiet",
    )  # fmt: skip
    assert said.code in MEASURED, said.err
    plan = pq.read_table(tmp_path / "run" / "plan.parquet")
    gaps = [b - a for a, b in zip(plan["at_ns"].to_pylist(), plan["at_ns"].to_pylist()[1:], strict=False)]
    assert plan.num_rows == 40 and gaps == pytest.approx([25e6] * 39, rel=0.01)
    assert manifest(tmp_path / "run")["spec"]["workload"]["trace"]["rate_by"] == "speed"
    said = tailgate("run", "--target", SIM, "--trace", "mine.csv", "--columns", "time", "--out", "other")
    assert said.code == 2 and "KEY=COLUMN" in said.err
