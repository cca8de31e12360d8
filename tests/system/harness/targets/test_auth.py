"""API keys: where they come from, how they are renewed, and what happens when a renewal fails."""

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tailgate.harness.config.run_spec import AuthSpec
from tailgate.harness.targets.credentials import Credentials
from tailgate.workloads.common.errors import UserError


class Told:
    """Stands in for the Locust process: keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.also: list[dict[str, str]] = []

    def headers(self, headers: dict[str, str]) -> None:
        self.messages.append({"op": "headers", "headers": headers})


def headers(**spec: Any) -> dict[str, str]:
    return asyncio.run(Credentials(AuthSpec(**spec)).headers())


def test_a_key_from_a_command() -> None:
    assert headers(command="printf 'sk-2\\n'") == {"Authorization": "Bearer sk-2"}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        (
            {"command": "echo no token for you >&2; exit 3"},
            "exit code 3: no token for you",
        ),
        ({"command": "true"}, "no key"),
        ({"command": "no-such-command-anywhere"}, "not found"),
        ({"command": "printf 'two\\nlines'"}, "line break"),
    ],
)
def test_no_key_is_an_error_of_the_user(spec: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        headers(**spec)


def test_an_unfit_key_is_not_shown() -> None:
    with pytest.raises(UserError) as caught:
        headers(command="printf 'secret\\nsecret'")
    assert "secret" not in str(caught.value)


def test_a_command_that_hangs_is_given_up_with_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tailgate.harness.targets.credentials._COMMAND_S", 0.2)
    began = time.monotonic()
    with pytest.raises(UserError, match="no key within"):
        headers(command=f"sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60' & wait")
    assert time.monotonic() - began < 10
    pid = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def renewals(folder: Path, script: str, until: Callable[[Told, Credentials], bool], change: str | None = None) -> Any:
    """Keep a key fresh, every 20 ms, until the condition holds."""
    (folder / "key").write_text("first")
    told = Told()

    async def run() -> Credentials:
        made = Credentials(AuthSpec(command=script.format(folder=folder), refresh=0.02))
        assert await made.headers() == {"Authorization": "Bearer first"}
        task = asyncio.create_task(made.keep_fresh({"X-Team": "a"}, [told.headers, told.also.append], retry_s=0.01))
        if change is not None:
            (folder / "key").write_text(change)
        deadline = time.monotonic() + 20
        while not until(told, made):
            assert not task.done() and time.monotonic() < deadline
            await asyncio.sleep(0.005)
        task.cancel()
        return made

    return asyncio.run(run()), told


def test_a_renewed_key_reaches_the_injectors_with_the_other_headers(tmp_path: Path) -> None:
    made, told = renewals(tmp_path, "cat {folder}/key", lambda told, _: bool(told.messages), "second")
    assert told.messages[-1] == {"op": "headers", "headers": {"X-Team": "a", "Authorization": "Bearer second"}}
    assert told.also[-1] == told.messages[-1]["headers"]
    assert made.events == []


def test_a_renewal_that_fails_is_tried_again_and_told(tmp_path: Path) -> None:
    """The command fails three times, then works."""
    script = (
        "cd {folder}; if [ -e begun ]; then echo x >> tries; if [ $(wc -l < tries) -le 3 ]; "
        "then echo vault sealed >&2; exit 1; fi; fi; touch begun; cat key"
    )
    made, told = renewals(tmp_path, script, lambda told, _: bool(told.messages))
    assert told.messages[0]["headers"]["Authorization"] == "Bearer first"
    failures, success = made.events[:3], made.events[3]
    assert all("vault sealed" in event["text"] and event["kind"] == "auth" for event in failures)
    assert "after 3 failed tries" in success["text"]
    assert [event["t_unix_ns"] for event in made.events] == sorted(event["t_unix_ns"] for event in made.events)


def test_a_key_s_age_counts_from_when_it_was_fetched_not_from_when_load_began(tmp_path: Path) -> None:
    """Bringing up a large model takes longer than some keys live."""
    (tmp_path / "key").write_text("first")

    async def run() -> tuple[dict[str, str], dict[str, str], float]:
        made = Credentials(AuthSpec(command=f"cat {tmp_path}/key", refresh=0.3))
        first = await made.headers()
        (tmp_path / "key").write_text("second")
        await asyncio.sleep(0.31)  # the time that the target took to start
        second = await made.headers()
        await asyncio.sleep(0.15)
        began = time.monotonic()
        told = Told()
        task = asyncio.create_task(made.keep_fresh({}, [told.headers]))
        while not told.messages:
            await asyncio.sleep(0.005)
        task.cancel()
        return first, second, time.monotonic() - began

    first, second, waited = asyncio.run(run())
    assert (first["Authorization"], second["Authorization"]) == ("Bearer first", "Bearer second")
    assert waited < 0.29


def test_a_key_that_the_target_refuses_is_renewed_at_once_and_then_ever_more_slowly(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("first")

    async def run() -> tuple[Told, Credentials, list[float]]:
        made = Credentials(AuthSpec(command=f"cat {tmp_path}/key"))  # no `refresh`: nobody said how long it lives
        await made.headers()
        (tmp_path / "key").write_text("second")
        told, at = Told(), []
        task = asyncio.create_task(
            made.keep_fresh({}, [told.headers, lambda _: at.append(time.monotonic())], retry_s=0.1)
        )
        while len(at) < 4:  # it refuses every key it gets
            assert not task.done()
            made.refused()
            await asyncio.sleep(0.005)
        task.cancel()
        return told, made, at

    told, made, at = asyncio.run(run())
    assert told.messages[0]["headers"] == {"Authorization": "Bearer second"}
    assert "refused the key (401)" in made.events[0]["text"]
    gaps = [after - before for before, after in pairwise(at)]
    assert gaps[0] >= 0.1 and gaps[1] >= 0.2 and gaps[2] >= 0.4


def test_while_renewals_fail_nothing_is_sent_to_the_injectors(tmp_path: Path) -> None:
    script = "cd {folder}; if [ -e begun ]; then exit 1; fi; touch begun; cat key"
    made, told = renewals(tmp_path, script, lambda _, made: len(made.events) >= 3)
    assert told.messages == []
    assert asyncio.run(made.headers()) == {"Authorization": "Bearer first"}
