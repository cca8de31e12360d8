"""How a spec says how many injectors there are, and whose tokens are acknowledged several at a time."""

from pathlib import Path
from typing import Any

import pytest

from tailgate.harness.cli.run import _from_flags, parser
from tailgate.harness.config.run_spec import RunSpec, build
from tailgate.workloads.common.errors import UserError

LOAD = {"prompt_tokens": 8, "output_tokens": 4, "arrivals": {"rate": 5.0}, "duration": 1.0}


def spec(target: dict[str, Any] | None = None, **keys: Any) -> RunSpec:
    data = {"target": {"url": "http://x", **(target or {})}, "workload": LOAD, **keys}
    return build(data, "test", Path())


def test_injectors_follow_the_load_unless_their_number_is_said() -> None:
    assert (spec().injectors, spec().injector_count) == ("auto", 1)  # until the plan is known
    assert spec(injectors=3).injector_count == 3
    with pytest.raises(UserError, match="injectors"):
        spec(injectors=0)


@pytest.mark.parametrize("whose", ["loopback", "always", "never"])
def test_acknowledgements_are_delayed_towards_those_that_are_named(whose: str) -> None:
    assert spec().target.delayed_acks == "loopback"
    assert spec({"delayed_acks": whose}).target.delayed_acks == whose
    flags = parser().parse_args(["--target", "http://x", "--delayed-acks", whose])
    assert _from_flags(flags, traced=False)["target"]["delayed_acks"] == whose


@pytest.mark.parametrize("wrong", ["no", True, "Loopback", ""])
def test_any_other_word_is_refused_with_those_that_fit(wrong: object) -> None:
    with pytest.raises(UserError, match=r"target\.delayed_acks.*loopback"):
        spec({"delayed_acks": wrong})
