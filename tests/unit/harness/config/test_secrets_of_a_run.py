"""What a run keeps of its spec and command line holds no secret."""

import contextlib
from pathlib import Path

import pytest

from tailgate.harness.cli.run import _command_line
from tailgate.harness.config import masking
from tailgate.harness.config import run_spec as specs
from tailgate.harness.config.masking import without_credentials
from tailgate.harness.targets.base import Life
from tailgate.loadgen.redact import Secrets, is_secret
from tailgate.workloads.common.errors import UserError

WORKLOAD = {"arrivals": {"rate": "1/s"}, "duration": "1s", "prompt_tokens": 1, "output_tokens": 1}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """What the process knows; nothing yet."""
    monkeypatch.setattr(masking, "SECRETS", Secrets())
    return masking.SECRETS


def built(**data: object) -> specs.RunSpec:
    return specs.build({"target": {"url": "http://h"}, "workload": WORKLOAD, **data}, "test", Path())


def test_the_manifest_s_spec_masks_headers_passwords_and_variables() -> None:
    target = {
        "urls": ["https://ann:hunter2@a:1/x", "http://b"],
        "headers": {"X-Key": "hunter2"},
        "env": {"HF_TOKEN": "hunter2", "VLLM_USE_V1": "1"},
    }
    public = built(target=target).public()
    assert "hunter2" not in str(public)
    assert public["target"]["urls"] == ["https://***@a:1/x", "http://b"]
    assert public["target"]["env"] == {"HF_TOKEN": "***", "VLLM_USE_V1": "1"}


def test_passwords_of_an_exporter_s_and_a_readiness_url_are_known(known: Secrets) -> None:
    target = {"kind": "command", "command": "serve", "url": "http://h", "ready": "http://ann:hunter2ready@h/health"}
    spec = built(target=target, telemetry={"gpu": "dcgm:http://ann:hunter2gpu@h:9400/metrics?key=hunter2query"})
    assert known.mask("hunter2ready hunter2gpu hunter2query") == "*** *** ***"
    assert "hunter2" not in str(spec.public())


def test_the_command_line_is_kept_without_passwords() -> None:
    argv = [
        "--target",
        "http://ann:hunter2@h:1",
        "--target=http://ann:hunter2@g",
        "--header",
        "A: hunter2",
        "--header=B: hunter2",
    ]
    shown = _command_line(argv)
    assert "hunter2" not in str(shown)
    assert shown[2:5] == ["--target", "http://***@h:1", "--target=http://***@g"]


def test_the_command_line_is_kept_without_the_secrets_of_a_body() -> None:
    body = '{"metadata": {"api_key": "hunter2", "n": 1}, "list": [{"token": "hunter2"}]}'
    shown = _command_line(["--extra", body, f"--extra={body}", "--extra", "not JSON: hunter2", "--seed", "3"])
    assert "hunter2" not in str(shown)
    masked = '{"metadata": {"api_key": "***", "n": 1}, "list": [{"token": "***"}]}'
    assert shown[2:] == ["--extra", masked, f"--extra={masked}", "--extra", "***", "--seed", "3"]


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("curl -u me:hunter2 https://idp/token", "curl ***"),
        ("/usr/bin/vault read hunter2", "/usr/bin/vault ***"),
        ("get-token", "get-token"),
        ("S=hunter2 sh -c x", "***"),
        ("$(cat hunter2)", "***"),
    ],
)
def test_of_what_fetches_a_key_only_the_program_is_kept(command: str, kept: str) -> None:
    public = built(target={"url": "http://h", "auth": {"command": command}}).public()
    assert public["target"]["auth"]["command"] == kept


@pytest.mark.parametrize(("share", "is_"), [("5%", 0.05), (0.05, 0.05), ("0.05", 0.05), (1, 1.0)])
def test_a_share_of_users_who_hang_up(share: object, is_: float) -> None:
    abandon = built(abandon={"share": share, "patience": "lognormal(2, 0.5)"}).abandon
    assert abandon is not None and abandon.share == pytest.approx(is_)


@pytest.mark.parametrize("abandon", [{"share": "5%"}, {"patience": "soon"}, {"patience": 5, "share": "200%"}])
def test_an_abandonment_that_makes_no_sense_is_refused(abandon: dict[str, object]) -> None:
    with pytest.raises(UserError, match="abandon"):
        built(abandon=abandon)


def test_the_manifest_s_spec_masks_arguments_and_words_of_commands() -> None:
    args = {"api-key": "hunter2", "extra": {"hf_token": "hunter2", "max_tokens": 5}, "max-num-batched-tokens": 2048}
    public = built(target={"kind": "vllm", "model": "m", "args": args}).public()
    assert public["target"]["args"] == {
        "api-key": "***", "extra": {"hf_token": "***", "max_tokens": 5}, "max-num-batched-tokens": 2048,
    }  # fmt: skip
    command = "docker run -e X_TOKEN=hunter2 -e HOME=/x image --api-key hunter2 --max-num-seqs 4 --secret=hunter2"
    public = built(target={"kind": "command", "command": command, "url": "http://h"}).public()
    assert public["target"]["command"] == (
        "docker run -e X_TOKEN=*** -e HOME=/x image --api-key *** --max-num-seqs 4 --secret=***"
    )
    public = built(extra={"user_token": "hunter2"}, telemetry={"gpu": "dcgm:http://a:hunter2@h/metrics"}).public()
    assert "hunter2" not in str(public)


def test_the_command_of_a_launch_is_kept_without_its_secrets() -> None:
    words = ["docker", "run", "-e", "A_KEY=hunter2", "x", "--token", "hunter2", "-H", "Authorization: Bearer hunter2"]
    kept = Life(command=words).as_dict()["command"]
    assert "hunter2" not in str(kept) and kept[:3] == words[:3] and len(kept) == len(words)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("api-key", True), ("apikey", True), ("secretKey", True), ("HF_TOKEN", True), ("password", True),
        ("max-num-batched-tokens", False), ("tokenizer", False), ("ssl-keyfile", False), ("monkey", False),
        ("long-prefill-token-threshold", False),
    ],
)  # fmt: skip
def test_what_counts_tokens_is_no_secret(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ann:hunter2@h:1/v1", "http://***@h:1/v1"),
        ("http://ann:p@hunter2@h", "http://***@h"),
        ("https://h/x?code=hunter2&api-version=2024-10-21#f", "https://h/x?code=***&api-version=2024-10-21#f"),
        ("https://h?sig=hunter2", "https://h?sig=***"),
        ("see https://h/x?k=hunter2, or not", "see https://h/x?k=*** or not"),
        ("is it so? a=b", "is it so? a=b"),
    ],
)
def test_of_a_url_user_password_and_query_are_masked(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


@pytest.mark.parametrize(
    "given",
    [
        {"target": {"url": "http://ann:canary-0001@h"}},
        {"target": {"urls": ["http://g", "http://h?k=canary-0001"]}},
        {"target": {"url": "http://h", "headers": {"X-Api-Key": "canary-0001"}}},
        {"target": {"url": "http://h", "env": {"HF_TOKEN": "canary-0001"}}},
        {"extra": {"metadata": [{"user_token": "canary-0001"}]}},
        {"extra": {"credentials": {"of": "canary-0001"}}},
        {"extra": {"password": "canary-0001"}, "no_such_key": 1},
    ],
)
def test_what_a_spec_gives_as_a_secret_is_masked_in_what_others_say(given: dict[str, object], known: Secrets) -> None:
    """Also where the spec is then refused, since the error may show it."""
    with contextlib.suppress(UserError):
        built(**given)
    assert known.mask("you said canary-0001 to us") == "you said *** to us"


def test_harmless_headers_do_not_blot_out_our_own_words(known: Secrets) -> None:
    built(target={"url": "http://h", "headers": {"X-Team": "completions"}})
    assert known.masked({"endpoint": "completions"}) == {"endpoint": "completions"}


@pytest.mark.parametrize("name", ["n" * 300, "ü" * 100, "a\x1b[31m", "a\nb", "a\u202eb"])
def test_a_name_that_no_folder_or_terminal_should_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="name"):
        built(name=name)


def test_a_server_s_words_in_an_error_do_not_act_on_the_terminal() -> None:
    assert str(UserError("it said \x1b[2J", where="\x07", remedy="\x9b")) == "\\x07: it said \\x1b[2J. \\x9b"
