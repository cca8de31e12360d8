"""What a spec says of its workload, all the way into a run: content, context, classes, slices of traces."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tests.kit.command import SHORT, SIM, Said, Tailgate

from tailgate.harness.config.run_spec import RunSpec

MEASURED = (0, 4)  # on a busy machine a run may rightly be INVALID
TARGET = {"kind": "sim", "sim": SIM.removeprefix("sim:")}
LENGTHS = {"prompt_tokens": 40, "output_tokens": 6, "arrivals": {"rate": "30/s"}, "duration": "1s"}


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
    said = tailgate(*flags, "--natural-output")  # now it is the engine that refuses: it has no model
    assert said.code in (1, 4) and "No request of the measure phase ended ok" in said.out, said.err


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
