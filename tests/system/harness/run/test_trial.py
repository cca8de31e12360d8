"""The trial before the load: which form servers take, what is learned from a refusal, who answers behind a gateway."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.kit.command import Tailgate, free_port
from tests.kit.engine import engine_process
from tests.kit.gateway import Gateway
from tests.kit.scripted import Peer, Request, ScriptedServer, whole

from tailgate.harness.config.run_spec import RunSpec, build
from tailgate.harness.run.prompt_content import Prompts
from tailgate.harness.run.request_form import VENDOR, RequestForm, choose_form
from tailgate.harness.run.trial import Trial, TrialPatience, try_form
from tailgate.harness.targets.base import Identity, TargetGone
from tailgate.harness.targets.inspect.probe import identify, session
from tailgate.loadgen.injector.http.endpoint import Trust
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import make_plan

WORKLOAD = {"prompt_tokens": 32, "output_tokens": 8, "arrivals": {"rate": "20/s"}, "requests": 4}
LOAD = ["--rate", "40/s", "--requests", "6", "--prompt-tokens", "32", "--output-tokens", "8", "--no-settle", "--quiet"]
MEASURED = (0, 4)  # well or not: on a busy machine that is another matter
PLAIN = RequestForm("plain", "text", "max_tokens", VENDOR)
VLLM = RequestForm("vllm", "ids")


def spec(url: str, endpoint: str = "completions", content: str = "corpus", **target: Any) -> RunSpec:
    workload = {**WORKLOAD, "content": {"kind": content}}
    return build({"target": {"url": url, "endpoint": endpoint, **target}, "workload": workload}, "test", Path.cwd())


def tried(
    gateway: Gateway, model: str | None = None, patience_s: float = 20.0, **target: Any
) -> tuple[Identity, Trial]:
    """What a gateway says it is, and what the trial found."""

    async def scenario(url: str) -> tuple[Identity, Trial]:
        run = spec(url, model=model, **target)
        async with session({}, Trust()) as http:
            identity = await identify(http, (url,), model, simulated=False)
            form = choose_form(run, identity)
            prompts = Prompts(None, {"mode": form.prompt})
            plan = make_plan(run.workload, 0)
            return identity, await try_form(http, run, identity, form, prompts, plan, TrialPatience(patience_s))

    with ScriptedServer(gateway) as server:
        return asyncio.run(scenario(server.url))


# --- who is vLLM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gateway", "form"),
    [
        (Gateway(), PLAIN),
        (Gateway(owner="vllm"), VLLM),
        (Gateway(owner="openai", metrics="# HELP vllm:num_requests_running x\n"), VLLM),
        (Gateway(owner="openai", metrics="sglang:num_running_reqs 1\n# about vllm: nothing\n"), PLAIN),
    ],
)
def test_a_server_is_vllm_by_its_own_word_only(gateway: Gateway, form: RequestForm) -> None:
    _, trial = tried(gateway)
    assert trial.form == form and trial.notices == []
    (body,) = gateway.bodies
    vendor = {"min_tokens", "ignore_eos", "cache_salt"}
    assert (set(body) & vendor == vendor) == (form is VLLM)
    assert isinstance(body["prompt"], list) == (form is VLLM)


def test_a_version_makes_no_vllm_and_the_note_says_what_that_means_for_lengths(
    tailgate: Tailgate, tmp_path: Path
) -> None:
    gateway = Gateway(forbids=dict.fromkeys(VENDOR, 400))

    def answer(peer: Peer, request: Request) -> None:
        if request.target == "/version":
            peer.send(whole(b'{"version": "1.2.0"}', content_type="application/json"))
        else:
            gateway(peer, request)

    with ScriptedServer(answer) as server:
        said = tailgate("run", server.url, *LOAD, "--out", tmp_path / "run")
    assert said.code in MEASURED, said.err
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    target = manifest["target"]
    assert (target["server"], target["version"], target["requests"]["fields"]) == ("openai", "1.2.0", "plain")
    assert manifest["cache"] == "as-is"
    assert any("upper bounds" in notice and "--fields vllm" in notice for notice in manifest["notices"])


def test_the_choice_is_the_person_s(tailgate: Tailgate, tmp_path: Path) -> None:
    gateway = Gateway()
    with ScriptedServer(gateway) as server:
        flags = [flag for flag in LOAD if flag != "--quiet"]
        said = tailgate("run", server.url, *flags, "--fields", "vllm", "--prompt", "text", "--out", tmp_path / "run")
    assert said.code in MEASURED, said.err
    assert "fields vllm, prompts as text, limit max_tokens" in said.err
    assert all(isinstance(body["prompt"], str) and body["ignore_eos"] for body in gateway.bodies)
    salts = [body["cache_salt"] for body in gateway.bodies]
    assert len(gateway.bodies) == 7 and salts[0] != salts[1] == salts[-1]


# --- what is learned ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize("in_a_200", [False, True])
def test_prompts_go_as_text_where_token_ids_are_refused(status: int, in_a_200: bool) -> None:
    gateway = Gateway(owner="vllm", forbids={"ids": status}, in_a_200=in_a_200)
    _, trial = tried(gateway)
    assert trial.form == replace(VLLM, prompt="text")
    assert "refused a trial request" in trial.notices[0] and "prompts as text" in trial.notices[0]


def test_token_ids_by_wish_are_refused_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"refuses prompts as token ids \(HTTP 422.*--prompt text"):
        tried(Gateway(forbids={"ids": 422}), prompt="ids")
    with pytest.raises(UserError, match=r"random tokens have no other form.*--content corpus"):
        tried(Gateway(forbids={"ids": 422}), content="random")


def test_the_limit_s_name_is_learned_from_the_server_s_error() -> None:
    says = "Unsupported parameter: '{name}' is not supported with this model. Use 'max_completion_tokens' instead."
    gateway = Gateway(forbids={"max_tokens": 400}, says=says)
    _, trial = tried(gateway, endpoint="chat")
    assert trial.form.limit == "max_completion_tokens" and trial.form.prompt == "chat"
    assert "max_completion_tokens" in gateway.bodies[-1] and "max_tokens" not in gateway.bodies[-1]


def test_the_limit_s_name_is_an_option_too() -> None:
    gateway = Gateway(forbids={"max_tokens": 400})
    assert tried(gateway, endpoint="chat", output_limit="max_completion_tokens")[1].notices == []
    assert tried(gateway, endpoint="chat", fields="openai")[1].notices == []
    with pytest.raises(TargetGone, match=r"refuses a trial request before the load \(HTTP 400"):
        tried(gateway, endpoint="chat", output_limit="max_tokens")


def test_a_limit_that_is_too_small_is_not_renamed() -> None:
    gateway = Gateway(forbids={"max_tokens": 400}, says="{name} must be at least 32")
    with pytest.raises(TargetGone, match="at least 32"):
        tried(gateway, endpoint="chat")
    assert not any("max_completion_tokens" in body for body in gateway.bodies)


@pytest.mark.parametrize("name", ["temperature", "stream_options", "cache_salt", "ignore_eos"])
def test_what_a_refusal_names_is_left_out(name: str) -> None:
    gateway = Gateway(owner="vllm", forbids={name: 422})
    _, trial = tried(gateway)
    assert trial.form == replace(VLLM, omitted=(name,)) and name not in gateway.bodies[-1]
    assert f"without {name}" in trial.notices[0]


def test_fields_that_a_refusal_does_not_name_go_last() -> None:
    _, trial = tried(Gateway(owner="vllm", forbids=dict.fromkeys(VENDOR, 400), says="invalid request"))
    assert trial.form == PLAIN


def test_fields_by_wish_stay() -> None:
    with pytest.raises(TargetGone, match="fields: vllm"):
        tried(Gateway(forbids={"ignore_eos": 400}), fields="vllm")


@pytest.mark.parametrize("status", [400, 404, 405, 422])
def test_nothing_is_measured_where_no_form_is_taken(tailgate: Tailgate, tmp_path: Path, status: int) -> None:
    gateway = Gateway(status=status)
    with ScriptedServer(gateway) as server:
        said = tailgate("run", server.url, *LOAD, "--out", tmp_path / "run")
    assert said.code == 2 and f"HTTP {status}: no such thing" in said.err and "'m'" in said.err
    assert len(gateway.bodies) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("status", [418, 429, 500, 503])
def test_a_server_that_is_busy_or_broken_is_measured_all_the_same(status: int) -> None:
    _, trial = tried(Gateway(status=status))
    assert trial.form == PLAIN and f"HTTP {status}" in trial.notices[0]


def test_a_server_that_takes_its_time_is_not_waited_for_for_ever() -> None:
    _, trial = tried(Gateway(hangs=True), patience_s=0.3)
    assert "did not answer a trial request within 0.3 s" in trial.notices[0]


# --- models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "models", [None, [], b"<html>hello</html>", b'{"data": null}', ["openai/gpt"], b"[]", 500, 502, False]
)
def test_a_list_that_does_not_help_is_a_note_where_the_model_is_named(models: Any) -> None:
    identity, trial = tried(Gateway(models=models), model="m")
    assert identity.model == "m" and not identity.listed and len(identity.notices) == 1
    assert trial.form == PLAIN


@pytest.mark.parametrize("models", [502, False])
def test_a_server_that_answers_neither_is_gone(models: Any) -> None:
    with pytest.raises(TargetGone, match=r"HTTP 502: .*after its list of models had failed too"):
        tried(Gateway(models=models, status=502), model="m")
    with pytest.raises(TargetGone):
        tried(Gateway(models=models))


@pytest.mark.parametrize(("models", "model"), [(["openai/*"], "openai/gpt"), ("*", "x"), (["a.b"], "a.b")])
def test_patterns_list_what_fits_them(models: Any, model: str) -> None:
    identity, _ = tried(Gateway(models=models), model=model)
    assert identity.listed and identity.notices == () and identity.model == model


@pytest.mark.parametrize("models", [None, [], ["openai/*"], b"<html>hello</html>"])
def test_without_a_name_it_is_asked_for(models: Any) -> None:
    with pytest.raises(UserError, match="--model NAME"):
        tried(Gateway(models=models))


def test_the_first_name_that_is_none_of_a_pattern_is_taken() -> None:
    assert tried(Gateway(models=["openai/*", "m"]))[0].model == "m"


def test_vllm_s_own_list_is_believed() -> None:
    with pytest.raises(UserError, match=r"does not serve the model 'x'.*It serves: m"):
        tried(Gateway(owner="vllm"), model="x")


def test_a_model_that_is_neither_listed_nor_served_is_refused_with_the_list() -> None:
    with pytest.raises(TargetGone, match=r"HTTP 404.*the model 'x'.*It lists: m"):
        tried(Gateway(status=404), model="x")


# --- replay ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settle", ["auto", "none"])
def test_a_replayed_log_sends_its_requests_and_nothing_else(tailgate: Tailgate, tmp_path: Path, settle: str) -> None:
    record = {
        "messages": [{"role": "user", "content": "the logged text", "trace": "canary-1"}], "top_p": 0.5, "n": 1,
        "model": "of the log", "max_completion_tokens": 9, "ignore_eos": True, "api_key": "canary-2",
        "user": "canary-3", "metadata": {"hash": "canary-4"}, "response_cost": 0.1,
        "usage": {"prompt_tokens": 5, "completion_tokens": 3},
    }  # fmt: skip
    lines = [json.dumps({**record, "timestamp": 1700000000 + k / 10}) for k in range(4)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    gateway = Gateway()
    flags = ["--trace", "log.jsonl", "--content", "replay", "--endpoint", "chat", "--quiet", "--out", tmp_path / "run"]
    with ScriptedServer(gateway) as server:
        said = tailgate("run", server.url, *flags, *(["--no-settle"] if settle == "none" else []))
    assert said.code in MEASURED, said.err
    assert "canary" not in json.dumps(gateway.bodies)
    names = {"model", "messages", "top_p", "n", "max_tokens", "stream", "stream_options"}
    assert all(set(body) == names and body["model"] == "m" for body in gateway.bodies)
    measured = [body for body in gateway.bodies if body["messages"][0]["content"] == "the logged text"]
    assert measured == gateway.bodies[-4:] and all(body["max_tokens"] == 3 for body in measured)
    notices = json.loads((tmp_path / "run" / "manifest.json").read_text())["notices"]
    assert any("not sent" in notice and "api_key" in notice and "messages[].trace" in notice for notice in notices)


# --- redirects ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/models", "/v1/completions"])
def test_a_redirect_is_refused_with_the_new_address_and_no_secret(path: str) -> None:
    new = f"https://ann:pw@new.example:8443/base{path}?key=secret"
    with pytest.raises(UserError) as error:
        tried(Gateway(moved={path: new}))
    assert f"redirects {path} to https://new.example:8443/base{path} (HTTP 307)" in error.value.what
    assert error.value.remedy == "Name the new address: --target https://new.example:8443/base"
    assert "secret" not in str(error.value) and "pw" not in str(error.value)


def test_a_list_behind_a_slash_is_a_missing_one() -> None:
    gateway = Gateway(moved={"/v1/models": "/v1/models/"})
    assert tried(gateway, model="m")[0].notices[0].endswith("answered HTTP 307; 'm' is asked for as it was given")
    with pytest.raises(UserError, match="--model NAME"):
        tried(gateway)


def test_a_redirect_under_load_names_its_place(tailgate: Tailgate, tmp_path: Path) -> None:
    gateway = Gateway()

    def answer(peer: Peer, request: Request) -> None:
        if gateway.bodies:  # after the trial
            gateway.moved["/v1/completions"] = "https://new.example/v1/completions?key=secret"
        gateway(peer, request)

    with ScriptedServer(answer) as server:
        said = tailgate("run", server.url, *LOAD, "--json", "--out", tmp_path / "run")
    assert said.code in (1, 4)
    text = json.dumps(said.summary) + (tmp_path / "run" / "report.html").read_text()
    assert "redirects to https://new.example/v1/completions, which is not followed" in text, said.summary[
        "invalid_reasons"
    ]
    assert "secret" not in text


# --- proxies --------------------------------------------------------------------------------------------


def test_probe_and_load_go_through_the_same_proxy_and_it_is_said(tailgate: Tailgate, tmp_path: Path) -> None:
    gateway = Gateway()
    asked: list[str] = []

    def proxy(peer: Peer, request: Request) -> None:
        asked.append(request.target)
        assert request.target.startswith("http://model.invalid/")
        gateway(peer, replace(request, target=request.target.removeprefix("http://model.invalid")))

    with ScriptedServer(proxy) as server:
        environment = {"HTTP_PROXY": server.url.replace("//", "//ann:canary@"), "NO_PROXY": "10.0.0.0/8"}
        said = tailgate("run", "http://model.invalid", *LOAD, "--out", tmp_path / "run", env=environment)
    assert said.code in MEASURED, said.err
    assert len(gateway.bodies) == 7 and any("/metrics" in target for target in asked)
    text = (tmp_path / "run" / "manifest.json").read_text()
    way = f"through the proxy {server.url} (HTTP_PROXY)"
    assert json.loads(text)["target"]["proxy"] == {"http://model.invalid": way} and "canary" not in text


def test_a_proxy_that_is_not_there_is_named_in_the_error(tailgate: Tailgate, tmp_path: Path) -> None:
    environment = {"HTTP_PROXY": f"http://ann:canary@127.0.0.1:{free_port()}"}
    said = tailgate("run", "http://model.invalid", *LOAD, "--out", tmp_path / "run", env=environment)
    assert said.code == 2 and "can't be reached through the proxy http://127.0.0.1" in said.err
    assert "(HTTP_PROXY)" in said.err and "canary" not in said.err


# --- who answers ----------------------------------------------------------------------------------------


def test_an_embedded_engine_behind_a_gateway_that_rewrites_its_owner_is_simulated(
    tailgate: Tailgate, tmp_path: Path
) -> None:
    import urllib.request

    def forward(url: str, request: Request) -> bytes:
        asked = urllib.request.Request(url + request.target, request.body or None, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked) as answer:
            return whole(answer.read(), content_type=answer.headers["Content-Type"])

    with engine_process() as (url, _):

        def answer(peer: Peer, request: Request) -> None:
            if request.method == "POST" and request.target == "/v1/completions":
                peer.send(forward(url, request))
            else:
                Gateway(models="sim", owner="openai")(peer, request)

        with ScriptedServer(answer) as server:
            said = tailgate("run", server.url, *LOAD, "--json", "--out", tmp_path / "run")
    assert said.code in MEASURED, said.err
    assert said.summary["simulated"] is True


def test_a_fingerprint_in_generated_text_is_none() -> None:
    gateway = Gateway(fingerprint='fp", "x": "tailgate-simulated')
    assert not tried(gateway)[1].simulated
    assert tried(Gateway(fingerprint="tailgate-simulated"))[1].simulated
