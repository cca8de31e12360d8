from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.profiles import load, names
from tailgate.workloads.config.workload import WorkloadSpec, explain
from tailgate.workloads.plan.plan import make_plan

MINIMAL: dict[str, Any] = {"prompt_tokens": 512, "output_tokens": 64, "arrivals": {"rate": "2/s"}, "duration": "10s"}


def message(**spec: Any) -> str:
    with pytest.raises(ValidationError) as error:
        WorkloadSpec.model_validate(spec)
    return str(explain(error.value, "chat.yaml"))


def test_an_unknown_key_says_what_was_meant() -> None:
    assert "unknown key 'promt_tokens' (did you mean 'prompt_tokens'?)" in message(**MINIMAL, promt_tokens=1)
    assert "arrivals: unknown key 'rat' (did you mean 'rate'?)" in message(**MINIMAL | {"arrivals": {"rat": 1}})
    assert "unknown key 'xyz' (known: prompt_tokens, " in message(**MINIMAL, xyz=1)
    assert "unknown key 'rate' (did you mean `arrivals: {rate: ...}`?)" in message(**MINIMAL, rate=5)
    assert "unknown key 'over' (did you mean 'over_context'?)" in message(**MINIMAL, over=5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt_tokens": None}, "prompt_tokens missing"),
        ({"arrivals": {"rate": "12/q"}}, "arrivals.rate: '12/q' is not a rate"),
        ({"arrivals": None}, "`arrivals.rate` is missing"),
        ({"duration": "10x"}, "duration: '10x' is not a duration"),
        ({"duration": None}, "`duration` or `requests` is missing"),
        ({"users": 3}, "exclude each other"),
        ({"users": 0}, "users: input should be greater than or equal to 1, not 0"),
        (
            {"output_tokens": "normal(3)"},
            "output_tokens: 'normal(3)', column 1: there is no distribution called 'normal'",
        ),
        ({"output_tokens": [3]}, "output_tokens: [3] is not a length"),
        ({"requests": "many"}, "requests: input should be a valid integer"),
        ({"trace": {"file": "a.csv", "format": "azur"}}, "trace.format: input should be 'auto', 'azure', "),
        ({"classes": {"a": {"weight": 0}}}, "classes.a.weight: input should be greater than 0, not 0"),
        ({"tenants": {"t": {"surge": {"start": 9, "end": 3, "factor": 2}}}}, "`end` is not after `start`"),
        ({"prefix": {"shared": {"pool": 3}}}, "either `tokens` or `share`"),
        ({"users": 4, "arrivals": None, "over_context": "drop"}, "can clip or scale, not drop"),
    ],
)
def test_one_clear_message_names_the_key(change: dict[str, Any], says: str) -> None:
    assert says in message(**MINIMAL | change)


def test_a_profile_that_isnt_there_names_its_neighbours() -> None:
    with pytest.raises(UserError, match=r"no profile 'chat-gatway'.*chat-gateway"):
        WorkloadSpec(profile="chat-gatway").resolved(Path())


def test_what_the_spec_says_goes_before_the_profile() -> None:
    spec = WorkloadSpec.model_validate(
        {"profile": "chat-gateway", "output_tokens": 5, "arrivals": {"rate": "3/s"}, "requests": 10}
    ).resolved(Path())
    assert spec.output_tokens == 5
    assert spec.prompt_tokens == "grid:azure_2023_conv.input"
    assert spec.arrivals is not None and (spec.arrivals.rate, spec.arrivals.shape) == (3.0, 0.94)
    assert (spec.requests, spec.duration, spec.based_on, spec.profile) == (10, None, "chat-gateway", None)


def test_another_process_leaves_only_the_profiles_rate() -> None:
    spec = WorkloadSpec.model_validate({"profile": "chat-gateway", "arrivals": {"process": "constant"}}).resolved(
        Path()
    )
    assert spec.arrivals is not None
    assert (spec.arrivals.process, spec.arrivals.rate, spec.arrivals.modulation) == ("constant", 5.53, ())


def test_users_take_the_place_of_the_profiles_arrivals_and_the_other_way_round() -> None:
    closed = WorkloadSpec(profile="chat-gateway", users=8).resolved(Path())
    assert (closed.loop, closed.arrivals) == ("closed", None)
    opened = WorkloadSpec.model_validate({"profile": "summarize-batch", "arrivals": {"rate": 1}}).resolved(Path())
    assert (opened.loop, opened.users) == ("open", None)


def test_a_rate_for_a_mix_of_classes_with_arrivals_is_that_of_all_together() -> None:
    mixed = {"profile": "mixed-realtime-batch", "arrivals": {"rate": "30/s"}}
    spec = WorkloadSpec.model_validate(mixed).resolved(Path())
    rates, before = (
        [kind.arrivals.mean_rate() or 0 for kind in one.classes.values() if kind.arrivals is not None]
        for one in (spec, WorkloadSpec(profile="mixed-realtime-batch").resolved(Path()))
    )
    assert sum(rates) == pytest.approx(30)
    assert np.allclose(np.divide(rates, before), 30 / sum(before))


def test_arrivals_that_would_change_nothing_are_refused() -> None:
    own = {"prompt_tokens": 8, "output_tokens": 8, "arrivals": {"rate": 1}}
    with pytest.raises(ValidationError, match="would change nothing"):
        WorkloadSpec.model_validate({"classes": {"a": own}, "arrivals": {"rate": 2}, "duration": 1})


@pytest.mark.parametrize("load_", [{"users": 4}, {"trace": {"file": "t.csv"}}])
def test_a_surge_needs_arrivals_of_the_workload(load_: dict[str, Any]) -> None:
    surge = {"a": {"surge": {"start": 1, "end": 2, "factor": 3}}}
    lengths = {} if "trace" in load_ else {"prompt_tokens": 8, "output_tokens": 8, "duration": 9}
    with pytest.raises(ValidationError, match="surge"):
        WorkloadSpec.model_validate({"tenants": surge, **lengths, **load_})


def test_users_and_a_surge_meet_classes_as_often_as_their_arrivals_do() -> None:
    lengths = {"prompt_tokens": 8, "output_tokens": 8}
    classes = {"x": {**lengths, "arrivals": {"rate": 5}}, "y": {**lengths, "arrivals": {"rate": 15}}}
    closed = make_plan(WorkloadSpec.model_validate({"classes": classes, "users": 4, "requests": 4000}), 1).table
    assert closed["class"].to_pylist().count("x") / 4000 == pytest.approx(0.25, abs=0.03)
    surge = {"t": {"surge": {"start": 10, "end": 50, "factor": 9}}}
    surging = make_plan(WorkloadSpec.model_validate({"classes": classes, "tenants": surge, "duration": 60}), 1).table
    inside = surging.filter(pc.and_(pc.greater(surging["at_ns"], 10**10), pc.less(surging["at_ns"], 5 * 10**10)))
    assert inside["class"].to_pylist().count("x") / inside.num_rows == pytest.approx(0.25, abs=0.03)


def test_a_class_can_be_based_on_a_profile() -> None:
    spec = WorkloadSpec.model_validate(
        {"classes": {"a": {"profile": "rag", "priority": 3}}, "arrivals": {"rate": 1}, "duration": 5}
    ).resolved(Path())
    assert spec.classes["a"].prompt_tokens == "grid:ragpulse_week.input"
    assert spec.classes["a"].priority == 3


def test_a_profile_of_ones_own_is_a_file_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "title: t\nabout: a\nsources: [me]\nworkload: {prompt_tokens: 7, output_tokens: 1, users: 2, requests: 5}\n"
    )
    assert WorkloadSpec(profile="mine.yaml").resolved(tmp_path).prompt_tokens == 7


def test_resolving_twice_changes_nothing_and_survives_json() -> None:
    for name in names():
        spec = WorkloadSpec(profile=name).resolved(Path())
        again = WorkloadSpec.model_validate(spec.model_dump(mode="json", exclude_none=True)).resolved(Path())
        assert again.model_dump() == spec.model_dump()


def test_file_names_are_relative_to_the_spec(tmp_path: Path) -> None:
    spec = WorkloadSpec.model_validate({"trace": {"file": "t.csv", "format": "azure"}}).resolved(tmp_path)
    assert spec.trace is not None and spec.trace.file == tmp_path.resolve() / "t.csv"


@pytest.mark.parametrize("name", names())
def test_each_profile_says_its_sources_and_its_rule_for_the_context(name: str) -> None:
    profile = load(name)
    assert profile.sources and profile.rule and profile.about
