"""The trial of several servers at once, of long and of logged requests, and of users' own code."""

import asyncio
import json
import re
import threading
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.kit.gateway import Gateway
from tests.kit.scripted import Peer, Request, ScriptedServer, whole

from tailgate.harness.config.run_spec import RunSpec, build
from tailgate.harness.run import prepare, prompt_content
from tailgate.harness.run.own_requests import OwnRequests
from tailgate.harness.run.prompt_content import Prompts
from tailgate.harness.run.request_form import choose_form
from tailgate.harness.run.trial import Trial, TrialPatience, try_form
from tailgate.harness.targets.base import Identity, TargetGone
from tailgate.harness.targets.inspect.fingerprint import fingerprint
from tailgate.harness.targets.inspect.probe import identify, session
from tailgate.loadgen.injector.http.endpoint import Trust
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import make_plan

WORKLOAD = {"prompt_tokens": 100, "output_tokens": 40, "arrivals": {"rate": "20/s"}, "requests": 4}
SAYS = "Unsupported parameter: use {name} not"


def spec(urls: tuple[str, ...], workload: dict[str, Any] = WORKLOAD, **target: Any) -> RunSpec:
    return build({"target": {"urls": list(urls), **target}, "workload": workload}, "test", Path.cwd())


def tried(
    *gateways: Callable[[Peer, Request], None], patience: TrialPatience = TrialPatience(20.0), model: str | None = None,  # noqa: B008
    **target: Any,
) -> Trial:  # fmt: skip
    async def scenario(urls: tuple[str, ...]) -> Trial:
        run = spec(urls, **target)
        async with session({}, Trust()) as http:
            identity = await identify(http, urls, model, simulated=False)
            form = choose_form(run, identity)
            plan = make_plan(run.workload, 0)
            return await try_form(http, run, identity, form, Prompts(None, {"mode": form.prompt}), plan, patience)

    with ExitStack() as stack:
        urls = tuple(stack.enter_context(ScriptedServer(gateway)).url for gateway in gateways)
        return asyncio.run(scenario(urls))


def test_the_trial_has_the_lengths_of_the_load() -> None:
    gateway = Gateway(owner="vllm", least=40)
    assert tried(gateway).notices == []
    (body,) = gateway.bodies
    assert (len(body["prompt"]), body["max_tokens"]) == (100, 40)


@pytest.mark.parametrize("output", ["forced", "natural"])
def test_that_of_a_log_is_its_middle_request_with_the_logged_limit(tmp_path: Path, output: str) -> None:
    lines = [
        {"prompt": [7] * n, "max_tokens": n, "usage": {"prompt_tokens": n, "completion_tokens": n - 1}, "timestamp": n}
        for n in (10, 500, 20)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    workload = {"trace": {"file": str(tmp_path / "log.jsonl")}, "content": {"kind": "replay"}}
    run = build({"target": {"url": "http://h"}, "workload": workload, "output": output}, "test", tmp_path)
    identity = Identity(("http://h",), "m", ("m",), "vllm", "1", None)
    prompts = Prompts(None, {}, str(tmp_path / "log.jsonl"))
    own = OwnRequests(run, identity, choose_form(run, identity), prompts, make_plan(run.workload, 0))
    bodies = [json.loads(own.typical()) for _ in range(5)]
    # The middle one, each time, with a text of its own.
    assert {body["max_tokens"] for body in bodies} == {20 if output == "natural" else 19}
    assert {len(body["prompt"]) for body in bodies} == {20} and len({str(body["prompt"]) for body in bodies}) == 5


def test_a_refused_log_is_asked_in_no_form_that_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(
        json.dumps(
            {"prompt": [7] * 9, "max_tokens": 9, "timestamp": 1, "usage": {"completion_tokens": 3, "prompt_tokens": 9}}
        )
    )
    gateway = Gateway(owner="openai", forbids={"ids": 422})
    workload = {"trace": {"file": str(tmp_path / "log.jsonl")}, "content": {"kind": "replay"}}

    async def scenario(url: str) -> Trial:
        run = spec((url,), workload, fields="openai", prompt="ids")
        async with session({}, Trust()) as http:
            identity = await identify(http, (url,), "m", simulated=False)
            prompts = Prompts(None, {}, str(tmp_path / "log.jsonl"))
            form, plan = choose_form(run, identity), make_plan(run.workload, 0)
            return await try_form(http, run, identity, form, prompts, plan, TrialPatience(20.0))

    with ScriptedServer(gateway) as server:
        trial = asyncio.run(scenario(server.url))
    assert len(gateway.bodies) == 1 and "refused a trial request" in trial.notices[0]


def test_an_answer_that_goes_on_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailgate.harness.run.trial._HEAR_S", 0.05)
    assert tried(Gateway(goes_on=True), patience=TrialPatience(60.0, final=True)).notices == []


def test_no_answer_is_final_where_a_warm_up_would_wait_again() -> None:
    with pytest.raises(TargetGone, match=r"did not answer a trial request within 0.2 s.*--no-settle"):
        tried(Gateway(hangs=True), patience=TrialPatience(0.2, final=True))


def test_all_servers_are_asked_at_once() -> None:
    both = threading.Barrier(2)
    one, two = Gateway(meets=both), Gateway(meets=both)
    assert tried(one, two).notices == [] and len(one.bodies) == len(two.bodies) == 1


def test_what_one_server_takes_is_tried_at_all_of_them() -> None:
    one, two = Gateway(), Gateway(forbids={"max_tokens": 400}, says=SAYS + "; max_completion_tokens")
    trial = tried(one, two, endpoint="chat")
    assert trial.form.limit == "max_completion_tokens" and len(trial.notices) == 1
    assert "max_completion_tokens" in one.bodies[-1] and "max_completion_tokens" in two.bodies[-1]


def test_servers_that_take_no_form_in_common_are_named() -> None:
    one = Gateway(forbids={"max_completion_tokens": 400}, says=SAYS)
    two = Gateway(forbids={"max_tokens": 400}, says=SAYS + "; max_completion_tokens")
    with pytest.raises(UserError, match=r"takes .*limit max_\w+.* and refuses what http://127.* takes .*of their own"):
        tried(one, two, endpoint="chat")


def test_a_server_with_nothing_to_say_leaves_the_choice_to_the_others() -> None:
    trial = tried(Gateway(status=503), Gateway(forbids={"max_tokens": 400}, says=SAYS), endpoint="chat")
    assert trial.form.limit == "max_completion_tokens" and "HTTP 503" in trial.notices[0]


def test_only_the_server_whose_list_had_failed_is_gone_where_it_has_no_answer_either() -> None:
    trial = tried(Gateway(models=502), Gateway(status=503), model="m")
    assert "HTTP 503" in trial.notices[0]
    with pytest.raises(TargetGone, match="after its list of models had failed too"):
        tried(Gateway(models=502, status=503), Gateway(), model="m")


# --- keys and redirects ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_not_good_for_the_list_may_be_good_for_requests(status: int) -> None:
    async def scenario(url: str, model: str | None) -> Identity:
        async with session({}, Trust()) as http:
            return await identify(http, (url,), model, simulated=False)

    with ScriptedServer(Gateway(models=status)) as server:
        identity = asyncio.run(scenario(server.url, "m"))
        assert f"answered HTTP {status}" in identity.notices[0] and identity.silent == ()
        with pytest.raises(UserError, match="--api-key-env"):
            asyncio.run(scenario(server.url, None))
    assert tried(Gateway(models=status), model="m").notices == []
    with pytest.raises(UserError, match="--api-key-env"):
        tried(Gateway(models=status, status=status), model="m")


@pytest.mark.parametrize(
    "gateway", [Gateway(status=401), Gateway(moved={"/v1/completions": "http://elsewhere/"}), Gateway(status=404)]
)
def test_users_own_code_is_not_refused_for_what_our_trial_meets(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "locustfile.py").write_text("")
    workload = {"locustfile": str(tmp_path / "locustfile.py"), "users": 1, "duration": "1s"}

    async def scenario(url: str) -> tuple[Identity, Trial]:
        run = spec((url,), workload)
        async with session({}, Trust()) as http:
            identity = await identify(http, (url,), "m", simulated=False)
            form = choose_form(run, identity)
            plan = make_plan(run.workload, 0)
            return await prepare._tried(http, run, identity, form, Prompts(None, {}), plan)

    with ScriptedServer(gateway) as server:
        identity, trial = asyncio.run(scenario(server.url))
    assert not identity.simulated and trial.notices == []


@pytest.mark.parametrize("location", ["http://[bad", ""])
def test_a_redirect_to_nowhere_is_one(location: str) -> None:
    with pytest.raises(UserError, match="redirects /v1/completions to nowhere"):
        tried(Gateway(moved={"/v1/completions": location}))


# --- what is asked --------------------------------------------------------------------------------------


class Counting:
    """A server of models and requests, and of some more paths, that keeps which it was asked for."""

    def __init__(self, answers: dict[str, Callable[[bytes], bytes]]) -> None:
        self.gateway, self.answers, self.asked = Gateway(), answers, list[str]()

    def __call__(self, peer: Peer, request: Request) -> None:
        path = request.target.partition("?")[0]
        self.asked.append(path)
        if path in self.answers:
            peer.send(whole(self.answers[path](request.body), content_type="application/json"))
        else:
            self.gateway(peer, request)


def words(asked: bytes) -> bytes:
    """A tokenizer's answer: a token is a word with the space before it."""
    found = re.findall(r" ?\w+|.|\n", json.loads(asked)["prompt"])
    names = [token.replace(" ", "Ġ").replace("\n", "Ċ") for token in found]
    ids = [zlib.crc32(name.encode()) % 30_000 for name in names]
    return json.dumps({"count": len(ids), "tokens": ids, "token_strs": names}).encode()


def before_the_load(server: Counting, folder: Path, *modes: Any) -> list[Prompts]:
    """Identity, fingerprint, and prompts made for one mode after the other."""
    (folder / "spool").mkdir(exist_ok=True)

    async def scenario(url: str) -> list[Prompts]:
        run = spec((url,))
        async with session({}, Trust()) as http:
            identity = await identify(http, (url,), None, simulated=False)
            await fingerprint(http, identity, None)
            plan = make_plan(run.workload, 0)
            made = [await prompt_content.prepare(http, identity, run, modes[0], plan, folder)]
            for mode in modes[1:]:
                made.append(await prompt_content.otherwise(http, identity, made[-1], mode))
            return made

    with ScriptedServer(server) as listening:
        return asyncio.run(scenario(listening.url))


def test_what_a_server_does_not_know_is_asked_once(tmp_path: Path) -> None:
    server = Counting({})
    (prompts,) = before_the_load(server, tmp_path, "text")
    assert sorted(server.asked) == ["/metrics", "/server_info", "/tokenize", "/v1/models", "/version"]
    assert len(prompts.notices) == 1 and "no /tokenize" in prompts.notices[0]


def test_of_a_text_instead_of_ids_only_what_the_server_adds_is_asked(tmp_path: Path) -> None:
    server, other = Counting({"/tokenize": words}), Counting({"/tokenize": words})
    ids, text = before_the_load(server, tmp_path, "ids", "text")
    before_the_load(other, tmp_path, "ids")
    of_the_text = other.asked.count("/tokenize")
    assert server.asked.count("/tokenize") == of_the_text + len(prompt_content._SAMPLE) and of_the_text > 10
    assert "overhead_tokens" in text.options and text.options["mode"] == "text" and ids.table == text.table


@pytest.mark.parametrize("nested", [b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_nesting_that_nobody_reads_is_no_answer(tmp_path: Path, nested: bytes) -> None:
    server = Counting(dict.fromkeys(("/version", "/server_info", "/tokenize"), lambda _: nested))
    (prompts,) = before_the_load(server, tmp_path, "text")
    assert "no /tokenize" in prompts.notices[0]
    with pytest.raises(UserError, match="not an OpenAI API"):
        tried(Counting({"/v1/models": lambda _: nested}))


@pytest.mark.parametrize("kind", ["sim", "vllm"])
def test_a_server_that_we_started_alone_is_not_asked_whether_it_is_several(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async def never(*_: object) -> tuple[str, ...]:
        raise AssertionError("asked")

    monkeypatch.setattr(prepare, "balanced", never)
    target = {"sim": "h100-sxm/llama-3.1-8b"} if kind == "sim" else {"kind": "vllm", "model": "m"}
    run = build({"target": target, "workload": WORKLOAD}, "test", Path.cwd())
    identity = Identity(("http://h",), "m", ("m",), "vllm", "1", None)
    assert asyncio.run(prepare._several_behind(run, identity, {}, prepare.Watcher())) == ()
    with pytest.raises(AssertionError, match="asked"):
        asyncio.run(prepare._several_behind(spec(("http://h",)), identity, {}, prepare.Watcher()))
