"""Cache policies and fingerprints against small servers and against the embedded engine."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.kit.scripted import Peer, Request, ScriptedServer, whole

from tailgate.harness.targets.base import Identity, Life
from tailgate.harness.targets.inspect.caches import prepare_caches
from tailgate.harness.targets.inspect.fingerprint import Fingerprint, fingerprint, memory
from tailgate.harness.targets.inspect.probe import session
from tailgate.harness.targets.inspect.replicas import balanced
from tailgate.harness.targets.launch.container import started_container
from tailgate.harness.targets.sim import SimTarget
from tailgate.loadgen.injector.http.endpoint import Trust
from tailgate.workloads.common.errors import UserError


def identity(url: str, dialect: str = "vllm") -> Identity:
    return Identity((url,), "m", ("m",), dialect, "1", 4096)


def routed(routes: dict[tuple[str, str], tuple[int, Any]]) -> ScriptedServer:
    def answer(peer: Peer, request: Request) -> None:
        status, body = routes.get((request.method, request.target.partition("?")[0]), (404, {}))
        text, kind = (body, "text/plain") if isinstance(body, str) else (json.dumps(body), "application/json")
        peer.send(whole(text.encode(), status, content_type=kind))

    return ScriptedServer(answer)


def against(
    routes: dict[tuple[str, str], tuple[int, Any]], ask: Callable[[aiohttp.ClientSession, str], Awaitable[Any]]
) -> Any:
    async def scenario() -> Any:
        with routed(routes) as server:
            async with aiohttp.ClientSession() as http:
                return await ask(http, server.url)

    return asyncio.run(scenario())


RESET = ("POST", "/reset_prefix_cache")


def test_isolation_is_a_new_salt_for_every_run_and_the_default_on_vllm():
    async def ask(http: aiohttp.ClientSession, url: str) -> list[Any]:
        return [
            await prepare_caches(http, identity(url), declared, can_salt=True)
            for declared in ("isolated", "isolated", None)
        ]

    states = against({}, ask)
    salts = {state.extra["cache_salt"] for state in states}
    assert len(salts) == 3 and {state.policy for state in states} == {"isolated"}


def test_other_servers_are_left_as_they_are_and_cannot_be_isolated():
    state = against({}, lambda http, url: prepare_caches(http, identity(url, "openai"), None, can_salt=False))
    assert (state.policy, state.extra) == ("as-is", {})
    with pytest.raises(UserError, match="have no cache_salt"):
        against({}, lambda http, url: prepare_caches(http, identity(url, "openai"), "isolated", can_salt=False))


def test_cold_is_believed_only_when_the_server_says_success():
    def cold(answer: tuple[int, Any]) -> Any:
        return against({RESET: answer}, lambda http, url: prepare_caches(http, identity(url), "cold", can_salt=True))

    assert cold((200, {"success": True})).policy == "cold"
    with pytest.raises(UserError, match="refused to reset"):
        cold((200, {"success": False}))
    with pytest.raises(UserError, match="can't be reset"):
        cold((200, "ok"))
    with pytest.raises(UserError, match=r"HTTP 404.*VLLM_SERVER_DEV_MODE"):
        cold((404, {}))


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_balancer_over_replicas_is_found_and_no_cache_behind_it_is_reset(replicas: int) -> None:
    def answer(peer: Peer, request: Request) -> None:
        """Each connection meets another replica and stays with it, as behind a balancer of TCP."""
        page = f"process_start_time_seconds {1000 + peer.number % replicas}\n"
        peer.send(whole(page.encode(), content_type="text/plain"))

    async def scenario(server: ScriptedServer) -> None:
        async with session({}, Trust(), anew=True) as http:
            several = await balanced(http, (server.url,))
            assert several == ((server.url,) if replicas > 1 else ())
            if several:
                with pytest.raises(UserError, match=r"several servers answer.*only one.*target\.urls"):
                    await prepare_caches(http, identity(server.url), "cold", several=several, can_salt=True)
                assert (
                    await prepare_caches(http, identity(server.url), None, several=several, can_salt=True)
                ).policy == "isolated"

    with ScriptedServer(answer) as server:
        asyncio.run(scenario(server))
        assert {request.method for request in server.requests} == {"GET"}


def test_a_server_without_metrics_is_asked_once() -> None:
    async def scenario(server: ScriptedServer) -> None:
        async with session({}, Trust(), anew=True) as http:
            assert await balanced(http, (server.url,)) == ()

    with routed({}) as server:
        asyncio.run(scenario(server))
        assert len(server.requests) == 1


def test_a_warm_cache_needs_a_warm_up():
    def warm(warmup_s: float) -> Any:
        return against({}, lambda http, url: prepare_caches(http, identity(url), "warm", warmup_s, can_salt=True))

    assert (warm(10.0).policy, warm(10.0).extra) == ("warm", {})
    with pytest.raises(UserError, match=r"cache: nothing would warm it.*workload\.warmup"):
        warm(0.0)


def test_without_server_info_the_metrics_tell_the_caches_settings():
    page = 'vllm:cache_config_info{block_size="16",cache_dtype="fp8",engine="0",num_gpu_blocks="9"} 1.0\n'
    found = against({("GET", "/metrics"): (200, page)}, lambda http, url: fingerprint(http, identity(url), None)).facts
    assert found["config"] == {"cache_config": {"block_size": "16", "cache_dtype": "fp8"}}
    assert "VLLM_SERVER_DEV_MODE" in found["config_source"]


def test_memory_is_told_by_the_log_and_the_metrics_together():
    page = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0\n'
    life = Life(details={"model_gib": 15.0, "kv_cache_gib": 2.0, "model_load_s": 3.0})
    found = against({("GET", "/metrics"): (200, page)}, lambda http, url: memory(http, identity(url), life))
    assert found == {
        "model_gib": 15.0, "kv_cache_gib": 2.0, "kv_blocks": 1000, "kv_block_tokens": 16, "kv_cache_tokens": 16000,
        "kv_bytes_per_token": 2 * 2**30 / 16000,
    }  # fmt: skip
    assert against({}, lambda http, url: memory(http, identity(url, "openai"), None)) == {}


def sim_fingerprint(**args: Any) -> dict[str, Any]:
    async def scenario() -> dict[str, Any]:
        target = SimTarget("l4/qwen2.5-0.5b", args, 0)
        try:
            (url,) = await target.start()
            async with aiohttp.ClientSession() as http:
                return (await fingerprint(http, identity(url), target.life)).facts
        finally:
            await target.stop()

    return asyncio.run(scenario())


def test_two_launches_have_equal_fingerprints_and_a_changed_flag_is_the_one_difference():
    one, two, changed = sim_fingerprint(), sim_fingerprint(), sim_fingerprint(max_num_seqs=3)
    assert one == two
    assert changed["config"]["scheduler_config"].pop("max_num_seqs") == 3
    assert one["config"]["scheduler_config"].pop("max_num_seqs") == 256
    assert changed == one


def both(first: dict[tuple[str, str], tuple[int, Any]], second: dict[tuple[str, str], tuple[int, Any]]) -> Fingerprint:
    async def scenario() -> Fingerprint:
        with routed(first) as a, routed(second) as b:
            async with aiohttp.ClientSession() as http:
                # The probe asks the first one for its version.
                return await fingerprint(http, Identity((a.url, b.url), "m", ("m",), "vllm", "0.32.0", 4096), None)

    return asyncio.run(scenario())


def server(version: str, seqs: int) -> dict[tuple[str, str], tuple[int, Any]]:
    info = {"vllm_config": {"scheduler_config": {"max_num_seqs": seqs, "policy": "fcfs"}}}
    return {("GET", "/version"): (200, {"version": version}), ("GET", "/server_info"): (200, info)}


def test_endpoints_that_are_alike_have_one_fingerprint():
    found = both(server("0.32.0", 16), server("0.32.0", 16))
    assert "replicas_differ" not in found.facts and not found.notices and found.facts["replicas"] == 2


def test_endpoints_of_other_versions_and_settings_are_said():
    found = both(server("0.32.0", 16), server("0.31.1", 8))
    assert found.facts["replicas_differ"]["version"] == ["0.32.0", "0.31.1"]
    (notice,) = found.notices
    assert "version 0.32.0 / 0.31.1" in notice and "settings scheduler_config.max_num_seqs" in notice
    assert found.facts["config"]["scheduler_config"]["max_num_seqs"] == 16


@pytest.mark.parametrize("words", [["--name", "llm", "-p", "8000:8000"], ["-p", "8000:8000"]])
def test_the_image_of_a_started_container_is_found_by_its_name_or_its_port(tmp_path: Path, words: list[str]):
    docker = tmp_path / "docker"
    docker.write_text("""#!/bin/sh
if [ "$1 $2 $3 $4 $5" = "ps --no-trunc --quiet --filter publish=8000" ]; then echo abc123; exit; fi
if [ "$1 $2" = "inspect llm" ] || [ "$1 $2" = "inspect abc123" ]; then
  echo '[{"Id": "abc123", "Image": "sha256:77", "Config": {"Image": "vllm/vllm-openai:v0.32.0"}}]'; exit
fi
exit 1
""")
    docker.chmod(0o755)
    what, which = asyncio.run(started_container([str(docker), "run", "--rm", *words, "vllm/vllm-openai"], 8000))
    assert what == {"kind": "docker", "image": "vllm/vllm-openai:v0.32.0", "image_digest": "sha256:77"}
    assert which == {"container_id": "abc123"}
    assert asyncio.run(started_container([str(docker), "run", "x"], 9999)) == ({}, {})
    assert asyncio.run(started_container(["python", "run"], 8000)) == ({}, {})
