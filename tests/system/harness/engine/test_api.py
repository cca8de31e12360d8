"""The engine's HTTP face, byte for byte in vLLM's shape, over real sockets."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.kit.engine import engine_process

FORCED = {"ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}


def call(url: str, body: Any = None, method: str | None = None) -> tuple[int, Any]:
    """Status and JSON of one request."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            text = response.read()
            return response.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def events(url: str, body: Any, headers: dict[str, str] | None = None) -> list[Any]:
    """The parsed events of a streamed answer; the last is the string [DONE]."""
    request = urllib.request.Request(url, json.dumps(body).encode(), headers or {})
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        raw = response.read().decode()
    assert raw.endswith("data: [DONE]\n\n")
    lines = [event.removeprefix("data: ") for event in raw.split("\n\n")[:-1]]
    return [*(json.loads(line) for line in lines[:-1]), lines[-1]]


def metrics(url: str) -> dict[str, float]:
    """All samples of /metrics by name (labels other than reasons and buckets left out), summed."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as response:
        text = response.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for s in family.samples:
            label = s.labels.get("finished_reason") or s.labels.get("le") or s.labels.get("reason")
            name = f"{s.name}/{label}" if label else s.name
            found[name] = found.get(name, 0.0) + s.value
    return found


def test_a_streamed_completion_has_a_chunk_per_token_then_usage_then_done(url: str):
    got = events(f"{url}/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 64, **FORCED}, {"X-Request-Id": "abc"})
    *chunks, usage, done = got
    assert done == "[DONE]" and len(chunks) == 64
    assert {c["id"] for c in chunks} == {"cmpl-abc"} and {c["object"] for c in chunks} == {"text_completion"}
    assert list(chunks[0]["choices"][0]) == [
        "index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_token_ids", "token_ids",
    ]  # fmt: skip
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * 63 + ["length"]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 64
    assert usage["usage"]["prompt_tokens"] == 3 and usage["usage"]["total_tokens"] == 67
    assert usage["metrics"]["time_to_first_token_ms"] >= usage["metrics"]["queue_time_ms"] >= 0


def test_some_tokens_have_no_text_and_are_chunks_all_the_same(url: str):
    *chunks, _, _ = events(f"{url}/v1/completions", {"prompt": [7], "max_tokens": 600, **FORCED})
    assert len(chunks) == 600 and "" in [c["choices"][0]["text"] for c in chunks]


def test_chat_begins_with_a_role_only_delta(url: str):
    body = {"messages": [{"role": "user", "content": "hello"}], "max_completion_tokens": 8, **FORCED}
    first, *chunks, usage, _ = events(f"{url}/v1/chat/completions", body)
    assert first["object"] == "chat.completion.chunk" and len(chunks) == 8
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(list(c["choices"][0]["delta"]) == ["content"] for c in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 8


def test_token_ids_are_listed_when_asked_for(url: str):
    body = {"prompt": [9, 8], "max_tokens": 5, "return_token_ids": True, "ignore_eos": True}
    *chunks, _ = events(f"{url}/v1/completions", {**body, "stream": True})
    assert [c["choices"][0]["prompt_token_ids"] for c in chunks] == [[9, 8], None, None, None, None]
    streamed = [c["choices"][0]["token_ids"] for c in chunks]
    assert all(len(ids) == 1 for ids in streamed)
    _, whole = call(f"{url}/v1/completions", body)
    assert whole["choices"][0]["token_ids"] == [ids[0] for ids in streamed]
    assert whole["choices"][0]["text"] == "".join(c["choices"][0]["text"] for c in chunks)


def test_running_usage_is_given_when_asked_for(url: str):
    body = {"prompt": [1], "max_tokens": 3, "ignore_eos": True, "stream": True}
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, _, _ = events(f"{url}/v1/completions", {**body, "stream_options": options})
    assert [c["usage"]["completion_tokens"] for c in chunks] == [1, 2, 3]


def test_an_answer_left_to_the_model_stops_by_itself_and_keeps_min_tokens(url: str):
    body = {"messages": [{"role": "user", "content": "go"}]}
    _, natural = call(f"{url}/v1/chat/completions", body)
    assert natural["choices"][0]["finish_reason"] == "stop"
    assert natural["choices"][0]["message"]["role"] == "assistant"
    least = natural["usage"]["completion_tokens"] + 10
    _, longer = call(f"{url}/v1/chat/completions", {**body, "min_tokens": least})
    assert longer["usage"]["completion_tokens"] == least


def test_text_and_its_token_ids_are_the_same_prompt(url: str):
    text = "the quick brown Fox, again"
    _, made = call(f"{url}/tokenize", {"prompt": text})
    assert call(f"{url}/detokenize", {"tokens": made["tokens"]}) == (200, {"prompt": text})
    _, one = call(f"{url}/v1/completions", {"prompt": text, "max_tokens": 2})
    assert one["usage"]["prompt_tokens"] == made["count"] == len(made["tokens"])
    _, chat = call(f"{url}/tokenize", {"messages": [{"role": "user", "content": text}]})
    assert chat["count"] > made["count"]


def test_a_second_equal_prompt_is_served_from_the_cache_until_it_is_reset_or_salted(url: str):
    body = {"prompt": list(range(1000, 1160)), "max_tokens": 1, "ignore_eos": True}

    def cached(**more: str) -> int:
        _, answer = call(f"{url}/v1/completions", {**body, **more})
        return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert cached() == 0
    assert cached() == 144  # nine blocks of 16: the tenth would leave nothing to compute
    assert cached(cache_salt="mine") == 0
    assert call(f"{url}/reset_prefix_cache", b"") == (200, {"success": True})
    assert cached() == 0


def test_metrics_grow_by_exactly_what_was_served(url: str):
    before = metrics(url)
    lengths = [(30, 5), (200, 17), (1, 1)]
    for prompt, output in lengths:
        body = {"prompt": [3] * prompt, "max_tokens": output, "ignore_eos": True, "cache_salt": f"m{prompt}"}
        call(f"{url}/v1/completions", body)
    after = metrics(url)

    def grown(name: str) -> float:
        return after[name] - before[name]

    assert grown("vllm:prompt_tokens_total") == 231 == grown("vllm:request_prompt_tokens_sum")
    assert grown("vllm:generation_tokens_total") == 23 == grown("vllm:request_generation_tokens_sum")
    assert grown("vllm:iteration_tokens_total_sum") == 231 + 23 - 3  # last tokens aren't run through it
    assert grown("vllm:request_success_total/length") == 3
    assert grown("vllm:time_to_first_token_seconds_count") == 3 == grown("vllm:e2e_request_latency_seconds_count")
    assert grown("vllm:inter_token_latency_seconds_count") == 20
    assert after["vllm:num_requests_running"] == after["vllm:kv_cache_usage_perc"] == 0
    assert after["tailgate_engine_step_lateness_seconds_count"] > 0


def test_the_surface_answers_as_vllm_does(url: str):
    assert call(f"{url}/health") == (200, None)
    assert call(f"{url}/version")[1]["version"].startswith("0.32.0+")
    assert call(f"{url}/load") == (200, {"server_load": 0})
    _, served = call(f"{url}/v1/models")
    assert [(m["id"], m["max_model_len"]) for m in served["data"]] == [("sim", 4096)]
    _, info = call(f"{url}/server_info")
    assert info["simulated"] and info["vllm_config"]["scheduler_config"]["max_num_batched_tokens"] == 8192
    assert call(f"{url}/nothing") == (404, {"detail": "Not Found"})
    assert call(f"{url}/v1/completions")[0] == 405


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ({"model": "no", "prompt": "a"}, (404, "NotFoundError", "model"), "Valid aliases: sim"),
        ({"prompt": [5] * 5000}, (400, "BadRequestError", "input_tokens"), "maximum context length is 4096"),
        ({"prompt": "a", "max_tokens": 5000}, (400, "BadRequestError", "max_tokens"), "5000"),
        ({"prompt": "a", "max_tokens": 0}, (400, "BadRequestError", "max_tokens"), "at least 1"),
        ({"prompt": "a", "max_tokens": 2, "min_tokens": 3}, (400, "BadRequestError", None), "min_tokens"),
        ({"prompt": "a", "max_tokens": "2"}, (400, "BadRequestError", "max_tokens"), "integer"),
        ({"prompt": []}, (400, "BadRequestError", "prompt"), "empty"),
        ({}, (400, "BadRequestError", "prompt"), "prompt"),
        ({"prompt": [1, "a"]}, (400, "BadRequestError", "prompt"), "one prompt"),
        ({"prompt": [999999]}, (400, "BadRequestError", None), "out of vocabulary"),
        ({"prompt": "a", "logprobs": 1}, (400, "BadRequestError", "logprobs"), "can't do"),
        ({"prompt": "a", "n": 2}, (400, "BadRequestError", "n"), "one choice"),
        ({"prompt": "a", "stream_options": 3}, (400, "BadRequestError", "stream_options"), "object"),
        ([], (400, "BadRequestError", None), "JSON object"),
        (b"{bad", (400, "Bad Request", "body"), "JSON"),
    ],
)
def test_what_cannot_be_served_is_refused_in_vllms_shape(
    url: str, body: Any, error: tuple[int, str, str | None], words: str
):
    status, answer = call(f"{url}/v1/completions", body)
    got = answer["error"]
    assert (status, got["type"], got["param"]) == error and got["code"] == status
    assert words in got["message"]


def drive(scenario: Callable[[aiohttp.ClientSession], Awaitable[None]]) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            await scenario(session)

    asyncio.run(run())


async def until(url: str, **expected: float) -> dict[str, float]:
    """Ask /metrics until all named samples have the expected values."""
    for _ in range(400):
        now = await asyncio.to_thread(metrics, url)
        if all(now[f"vllm:{name.replace('__', '/')}"] == value for name, value in expected.items()):
            return now
        await asyncio.sleep(0.01)
    raise AssertionError(f"never {expected}: {now}")


def test_a_client_that_hangs_up_frees_its_place():
    with engine_process("--max-num-seqs", "1") as (url, _):

        async def scenario(session: aiohttp.ClientSession) -> None:
            body = {"prompt": [1], "max_tokens": 4000, "ignore_eos": True, "stream": True}
            hog = await session.post(f"{url}/v1/completions", json=body)
            await hog.content.readline()
            next_one = asyncio.create_task(session.post(f"{url}/v1/completions", json={**body, "max_tokens": 2}))
            await until(url, num_requests_running=1, num_requests_waiting=1)
            hog.close()
            answer = await next_one
            assert (await answer.text()).endswith("data: [DONE]\n\n")
            after = await until(url, num_requests_running=0, request_success_total__abort=1)
            assert after["vllm:request_success_total/length"] == 1

        drive(scenario)


def test_beyond_its_queue_limit_it_answers_503_and_counts_it():
    with engine_process("--max-num-queued-reqs", "2") as (url, _):

        async def scenario(session: aiohttp.ClientSession) -> None:
            body = {"prompt": [1], "max_tokens": 3000, "ignore_eos": True, "stream": True}
            for _ in range(2):
                held = await session.post(f"{url}/v1/completions", json=body)
                await held.content.readline()
            refused = await session.post(f"{url}/v1/completions", json=body)
            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == 503
            assert (await until(url, num_requests_running=2))[
                "vllm:admission_rejections_total/max_num_queued_reqs"
            ] == 1

        drive(scenario)


def test_a_small_cache_preempts_and_everyone_still_gets_all_tokens():
    with engine_process("--max-model-len", "512", "--num-gpu-blocks-override", "40") as (url, _):

        async def scenario(session: aiohttp.ClientSession) -> None:
            bodies = [{"prompt": [n] * 64, "max_tokens": 200, "ignore_eos": True} for n in range(8)]
            answers = await asyncio.gather(*(session.post(f"{url}/v1/completions", json=b) for b in bodies))
            assert [(await a.json())["usage"]["completion_tokens"] for a in answers] == [200] * 8
            after = await asyncio.to_thread(metrics, url)
            assert after["vllm:num_preemptions_total"] > 0
            assert after["vllm:generation_tokens_total"] == 1600

        drive(scenario)


def test_requests_share_steps_so_eight_take_far_less_than_eight_times_as_long_as_one():
    with engine_process("--no-enable-prefix-caching") as (url, _):

        async def scenario(session: aiohttp.ClientSession) -> None:
            async def ask() -> None:
                body = {"prompt": [1] * 8, "max_tokens": 100, "ignore_eos": True}
                assert (await session.post(f"{url}/v1/completions", json=body)).status == 200

            clock = asyncio.get_running_loop().time
            began = clock()
            await ask()
            alone = clock() - began
            began = clock()
            await asyncio.gather(*(ask() for _ in range(8)))
            assert clock() - began < 3 * alone

        drive(scenario)


def test_it_ends_on_sigterm_even_with_requests_in_flight():
    with engine_process() as (url, process):

        async def scenario(session: aiohttp.ClientSession) -> None:
            body = {"prompt": [1], "max_tokens": 30000, "ignore_eos": True, "stream": True}
            held = await session.post(f"{url}/v1/completions", json=body)
            await held.content.readline()
            process.terminate()
            assert await asyncio.to_thread(process.wait, 10) == 0

        drive(scenario)


def test_it_ends_when_the_process_that_started_it_is_killed():
    script = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-m', 'tailgate.harness.engine', '--preset', 'l4/qwen2.5-0.5b'],"
        " stdout=subprocess.PIPE, text=True)\n"
        "print(p.pid, p.stdout.readline(), flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdin is not None
    pid = int(parent.stdout.readline().split()[0])
    watch = os.pidfd_open(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    import select

    ended, _, _ = select.select([watch], [], [], 10)
    os.close(watch)
    parent.stdout.close()
    parent.stdin.close()
    assert ended


def test_a_wrong_command_line_is_one_clear_line_and_exit_2():
    wrong = subprocess.run(
        [sys.executable, "-m", "tailgate.harness.engine", "--preset", "h100-sxm/gpt-5"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert wrong.returncode == 2 and "no preset" in wrong.stderr and wrong.stderr.count("\n") == 1
    with engine_process() as (url, _):
        taken = subprocess.run(
            [
                sys.executable,
                "-m",
                "tailgate.harness.engine",
                "--preset",
                "l4/qwen2.5-0.5b",
                "--port",
                url.rpartition(":")[2],
            ],
            check=False,
            capture_output=True,
            text=True,
        )
    assert taken.returncode == 2 and "--port" in taken.stderr
