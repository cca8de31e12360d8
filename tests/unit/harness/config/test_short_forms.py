"""What people write who have read half a page: it is understood, or the hint names what they meant."""

from pathlib import Path

import pytest
import yaml

from tailgate.harness.cli import run as run_command
from tailgate.harness.cli import serve
from tailgate.harness.cli.flags import RUN, spec_from
from tailgate.harness.config import run_spec as specs
from tailgate.workloads.common.errors import UserError

WORKLOAD = {"arrivals": {"rate": "1/s"}, "duration": "1s", "prompt_tokens": 1, "output_tokens": 1}


def built(**data: object) -> specs.RunSpec:
    return specs.build({"target": {"url": "http://h"}, "workload": WORKLOAD, **data}, "test", Path())


def test_a_target_may_be_its_url_or_its_engine() -> None:
    assert built(target="http://h:1/v1").target.all_urls == ("http://h:1",)
    assert (built(target="sim:a/b").target.kind, built(target="sim:a/b").target.sim) == ("sim", "a/b")
    assert specs.masked({"target": "http://ann:hunter2@h"})["target"]["url"] == "http://***@h"


def test_a_short_target_joins_what_flags_say_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("target: http://h\n")
    merged = specs.merge(specs.load(tmp_path / "a.yaml"), {"target": {"model": "m"}})
    assert merged["target"] == {"url": "http://h", "model": "m"}


def test_objectives_may_be_a_list() -> None:
    lines = ["ttft: p99 < 800ms", {"e2e": "p50 < 2s"}, "ttft: p50 < 300ms"]
    assert built(slo=lines).slo == {"ttft": "p99 < 800ms and p50 < 300ms", "e2e": "p50 < 2s"}
    with pytest.raises(UserError, match="expected 'figure: condition'"):
        built(slo=["p99"])


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ({"target": {"kind": "vlm", "model": "m"}}, "target.kind: .* not 'vlm': did you mean 'vllm'?"),
        ({"rate": 5}, "unknown key 'rate' .did you mean `workload: {arrivals: {rate: ...}}`?"),
        ({"model": "m"}, "unknown key 'model' .did you mean `target: {model: ...}`?"),
        ({"server_metrics": "off"}, "unknown key 'server_metrics' .did you mean `telemetry: {server: none}`?"),
        ({"gpus": {"price": 2}}, "unknown key 'price' .did you mean 'price_per_hour' or "),
        ({"target": {"url": "http://h", "endpoint": "chats"}}, "did you mean 'chat'?"),
    ],
)
def test_a_near_word_is_named(data: dict[str, object], hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        built(**data)


def test_server_metrics_are_switched_off_by_a_word_of_yaml_or_a_flag() -> None:
    assert built(telemetry=yaml.safe_load("server: off")).telemetry.server == "none"
    given = run_command.parser().parse_args(["--no-server-metrics"])
    assert spec_from(given, RUN) == {"telemetry": {"server": "none"}}


@pytest.mark.parametrize("target", ["sim:h100-sxm/llama-3.1-8b", "http://127.0.0.1:1/a", "https://h"])
def test_run_takes_a_target_in_the_place_of_a_spec(target: str) -> None:
    assert run_command.parser().parse_args([target]).spec == target
    assert run_command.parser().parse_args(["a.yaml"]).spec == Path("a.yaml")


def test_the_help_of_serve_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve.run(["--help"])
    assert capsys.readouterr().out.startswith("usage: tailgate serve sim:GPU/MODEL [FLAG ...]\n")
