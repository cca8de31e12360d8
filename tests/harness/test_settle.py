"""Warming up until the pace is steady: against servers that become faster as scripted."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pyarrow as pa
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from harness.settle import AT_ONCE, WINDOW, Settled, settle, steady
from harness.targets.base import Identity


@dataclass
class Scripted:
    """Answers after `slow` seconds to the first requests, after `fast` to the others."""

    slow: float
    fast: float
    slow_requests: int
    bodies: list[Any] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        self.paths.add(request.path)
        await asyncio.sleep(self.slow if len(self.bodies) <= self.slow_requests else self.fast)
        return web.json_response({})


@dataclass
class Lengths:
    """As much of a plan as is looked at."""

    table: Any


def plan(*prompt_tokens: int) -> Any:
    return Lengths(pa.table({"prompt_tokens": pa.array(prompt_tokens, pa.int32())}))


def against(script: Scripted, endpoint: str = "completions", dialect: str = "vllm", budget_s: float = 20) -> Settled:
    async def scenario() -> Settled:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/{tail:.*}", script.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        identity = Identity((f"http://127.0.0.1:{runner.addresses[0][1]}",), "m", ("m",), dialect, "1", 2000)
        try:
            async with aiohttp.ClientSession() as http:
                return await settle(http, identity, endpoint, plan(100, 200, 300, 5000), budget_s)
        finally:
            await runner.cleanup()

    return asyncio.run(scenario())


def test_it_goes_on_until_the_slow_start_is_over():
    script = Scripted(slow=0.25, fast=0.1, slow_requests=3 * AT_ONCE)
    settled = against(script)
    assert settled.steady and len(settled.rounds_s) >= 3 + WINDOW - 1
    assert settled.requests == len(script.bodies) == AT_ONCE * len(settled.rounds_s)


def test_it_gives_up_after_its_budget_and_says_so():
    settled = against(Scripted(slow=0.1, fast=0.1, slow_requests=0), budget_s=0.25)
    assert not settled.steady and 0 < len(settled.rounds_s) < WINDOW
    assert settled.as_dict()["steady"] is False


def test_its_prompts_are_never_twice_the_same_nor_in_anyones_cache_and_fit_the_context():
    script = Scripted(slow=0.02, fast=0.02, slow_requests=0)
    against(script, budget_s=0.3)
    assert (
        len({b["prompt"] for b in script.bodies}) == len({b["cache_salt"] for b in script.bodies}) == len(script.bodies)
    )
    assert max(len(b["prompt"]) for b in script.bodies) < 2000 * 4
    assert all(b["ignore_eos"] for b in script.bodies) and script.paths == {"/v1/completions"}


def test_other_servers_get_no_fields_of_vllms():
    script = Scripted(slow=0.02, fast=0.02, slow_requests=0)
    against(script, "chat", "openai", budget_s=0.1)
    assert script.paths == {"/v1/chat/completions"}
    assert set(script.bodies[0]) == {"model", "max_tokens", "messages"}


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
    assert steady(rounds) is verdict


@given(st.lists(st.floats(0.01, 10), min_size=WINDOW, max_size=20), st.sampled_from([0.25, 2.0, 1024.0]))
def test_steadiness_knows_no_unit(rounds: list[float], factor: float):
    assert steady(rounds) == steady([r * factor for r in rounds])
