"""Warming up until the pace is steady: against servers that become faster as scripted."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa
import pytest
from aiohttp import web

from tailgate.harness.config.run_spec import build
from tailgate.harness.run.own_requests import OwnRequests
from tailgate.harness.run.prompt_content import Prompts
from tailgate.harness.run.request_form import choose_form
from tailgate.harness.run.warmup import AT_ONCE, MOST_AT_ONCE, WINDOW, WarmupRefused, WarmupResult, warm_up
from tailgate.harness.targets.base import Identity, TargetGone


@dataclass
class Scripted:
    """Answers after `slow` seconds to the first requests, after `fast` to the others."""

    slow: float
    fast: float
    slow_requests: int
    status: int = 200
    admits: int = 1_000_000  # at once; to more it says 503
    in_stream: bool = False  # it says so behind a 200, as vLLM does where the queue filled up in between
    bodies: list[Any] = field(default_factory=list)
    in_flight: int = 0
    most: int = 0
    paths: set[str] = field(default_factory=set)

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        self.paths.add(request.path)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        if self.in_flight > self.admits:
            self.in_flight -= 1
            if self.in_stream:
                return web.Response(body=b'data: {"error":{"message":"full","code":503}}\n\ndata: [DONE]\n\n')
            return web.json_response({"error": "full"}, status=503)
        await asyncio.sleep(self.slow if len(self.bodies) <= self.slow_requests else self.fast)
        self.in_flight -= 1
        return web.json_response({"error": "busy\nnow"} if self.status != 200 else {}, status=self.status)


@dataclass
class Lengths:
    """As much of a plan as is looked at."""

    table: Any
    span_s: float = 0.0
    loop: str = "open"


def plan(*prompt_tokens: int, span_s: float = 0.0, output_tokens: int = 32) -> Any:
    columns = {"prompt_tokens": prompt_tokens, "output_tokens": [output_tokens] * len(prompt_tokens)}
    return Lengths(pa.table({name: pa.array(values, pa.int32()) for name, values in columns.items()}), span_s)


def against(
    *scripts: Scripted, endpoint: str = "completions", dialect: str = "vllm", budget_s: float = 20,
    sent: Any = None, users: int = 0,
) -> WarmupResult:  # fmt: skip
    async def serve(script: Scripted) -> web.AppRunner:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/{tail:.*}", script.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    async def scenario() -> WarmupResult:
        runners = [await serve(script) for script in scripts]
        urls = tuple(f"http://127.0.0.1:{runner.addresses[0][1]}" for runner in runners)
        identity = Identity(urls, "m", ("m",), dialect, "1", 2000)
        lengths = sent or plan(100, 200, 300, 5000)
        workload = {"prompt_tokens": 8, "output_tokens": 8, "users": 1, "requests": 1}
        spec = build({"target": {"url": urls[0], "endpoint": endpoint}, "workload": workload}, "test", Path.cwd())
        form = choose_form(spec, identity)
        own = OwnRequests(spec, identity, form, Prompts(None, {"mode": form.prompt}), lengths)
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
                return await warm_up(http, identity, own, lengths, users, budget_s)
        finally:
            for runner in runners:
                await runner.cleanup()

    return asyncio.run(scenario())


def test_it_goes_on_until_the_slow_start_is_over():
    script = Scripted(slow=0.25, fast=0.1, slow_requests=3 * AT_ONCE)
    settled = against(script)
    assert settled.steady and len(settled.rounds_s) >= 3 + WINDOW - 1
    assert settled.requests == len(script.bodies) == AT_ONCE * len(settled.rounds_s)


def test_its_budget_is_extended_once_then_it_gives_up_and_says_so():
    settled = against(Scripted(slow=0.1, fast=0.1, slow_requests=0), budget_s=0.12)
    assert not settled.steady and 0 < len(settled.rounds_s) < WINDOW
    assert settled.as_dict()["steady"] is False and settled.extended
    assert 0.24 < sum(settled.rounds_s) < 0.6


def test_what_becomes_steady_in_the_extension_is_steady():
    settled = against(Scripted(slow=0.1, fast=0.1, slow_requests=0), budget_s=0.55)
    assert settled.steady and settled.extended


def test_every_endpoint_is_warmed_up():
    one, two = Scripted(0.02, 0.02, 0), Scripted(0.02, 0.02, 0)
    settled = against(one, two)
    assert len(one.bodies) == len(two.bodies) == AT_ONCE * len(settled.rounds_s)
    assert settled.requests == 2 * len(one.bodies)


@pytest.mark.parametrize(("users", "most"), [(1, AT_ONCE), (20, 32), (1000, MOST_AT_ONCE)])
def test_a_closed_loop_is_warmed_up_with_as_many_at_once_as_it_has_users(users: int, most: int):
    script = Scripted(0.05, 0.05, 0)
    settled = against(script, users=users)
    assert settled.steady and settled.at_once == script.most == most


def test_an_open_loop_is_warmed_up_with_what_it_will_keep_in_flight():
    # 40 requests in 2 s, each of ten times a round's tokens: 20/s x 10 x 0.1 s.
    script = Scripted(0.1, 0.1, 0)
    settled = against(script, sent=plan(*[100] * 40, span_s=2.0, output_tokens=320))
    assert settled.at_once == script.most == 32


def test_a_slow_first_round_is_not_taken_for_what_a_request_takes():
    script = Scripted(slow=0.5, fast=0.02, slow_requests=AT_ONCE)
    settled = against(script, sent=plan(*[100] * 40, span_s=1.0))
    assert settled.at_once == script.most == AT_ONCE


@pytest.mark.parametrize("in_stream", [False, True])
@pytest.mark.parametrize("admits", [1, 3, 10])
def test_a_server_that_admits_only_so_many_gets_no_more_at_once(admits: int, in_stream: bool):
    settled = against(Scripted(0.01, 0.01, 0, admits=admits, in_stream=in_stream), sent=plan(64), users=32)
    assert settled.steady and 1 <= settled.at_once <= admits


def test_a_server_that_admits_none_is_refused():
    with pytest.raises(WarmupRefused, match="503"):
        against(Scripted(0.01, 0.01, 0, admits=0))


def test_an_answer_that_is_not_200_is_no_warm_up():
    with pytest.raises(WarmupRefused, match=r"v1/completions: answers warm-up requests with HTTP 400: .*busy") as error:
        against(Scripted(0.01, 0.01, 0, status=400))
    assert isinstance(error.value, TargetGone)


def test_its_prompts_are_never_twice_the_same_nor_in_anyones_cache_and_fit_the_context():
    script = Scripted(slow=0.02, fast=0.02, slow_requests=0)
    against(script, budget_s=0.3)
    prompts = {tuple(b["prompt"]) for b in script.bodies}
    assert len(prompts) == len({b["cache_salt"] for b in script.bodies}) == len(script.bodies)
    assert max(len(prompt) for prompt in prompts) < 2000 and all(type(token) is int for p in prompts for token in p)
    assert all(b["ignore_eos"] for b in script.bodies) and script.paths == {"/v1/completions"}


def test_other_servers_get_no_fields_of_vllms():
    script = Scripted(slow=0.02, fast=0.02, slow_requests=0)
    against(script, endpoint="chat", dialect="openai", budget_s=0.1)
    assert script.paths == {"/v1/chat/completions"}
    assert set(script.bodies[0]) == {"model", "max_tokens", "messages", "temperature", "stream", "stream_options"}
