"""Flags against the installed vLLM's parser; the interpreter here is a script that answers as vLLM's would."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kit.paths import SMALL_SERVER

from tailgate.harness.targets import vllm_flags
from tailgate.harness.targets.inspect.probe import OPEN, Access
from tailgate.harness.targets.vllm import VllmTarget
from tailgate.loadgen.injector.http.endpoint import Trust
from tailgate.workloads.common.errors import UserError

FLAGS = {
    "--max-num-seqs": [None, "int", None],
    "--max-num-batched-tokens": [None, "int", None],
    "--gpu-memory-utilization": [None, "float", None],
    "--kv-cache-dtype": [["auto", "fp8"], "str", None],
    "--middleware-kinds": [["a", "b"], "str", "+"],
    "--enable-prefix-caching": [None, "", 0],
    "--no-enable-prefix-caching": [None, "", 0],
    "--enforce-eager": [None, "", 0],
    "--enable-prompt-tokens-details": [None, "", 0],
    "--compilation-config": [None, "loads", None],
}


def interpreter(folder: Path, version: str | None = "0.32.0") -> Path:
    """Counts its calls in a file beside it."""
    path = folder / "python"
    answer = {"version": version, "command": False, "flags": FLAGS}
    path.write_text(f"#!/bin/sh\necho \"$3\" >> {folder}/calls\ncat <<'EOF'\nnoise\n\n{json.dumps(answer)}\nEOF\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vllm_flags.Installed:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asyncio.run(vllm_flags.inspect(str(interpreter(tmp_path))))


def test_the_parser_is_asked_once_per_version(installed: vllm_flags.Installed, tmp_path: Path):
    again = asyncio.run(vllm_flags.inspect(installed.python))
    assert again == installed and installed.version == "0.32.0"
    assert (tmp_path / "calls").read_text().splitlines() == ["", "--flags", ""]


def test_known_flags_pass_with_dashes_or_underscores_switched_on_or_off(installed: vllm_flags.Installed):
    vllm_flags.check(
        installed,
        {
            "max_num_seqs": 16,
            "max-num-batched-tokens": "2048",
            "gpu-memory-utilization": 0.9,
            "kv-cache-dtype": "fp8",
            "middleware-kinds": ["a", "b"],
            "enforce-eager": True,
            "enable-prefix-caching": False,
            "compilation-config.mode": 3,
        },
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("max-num-seq", 1, "has no flag --max-num-seq. Did you mean max-num-seqs"),
        ("max-num-seqs", "many", "'many' is not a whole number"),
        ("max-num-seqs", True, "True is not a whole number"),
        ("gpu-memory-utilization", "all", "not a number"),
        ("kv-cache-dtype", "int4", "'int4' is not one of auto, fp8"),
        ("kv-cache-dtype", ["auto", "fp8"], "is a list, and the flag takes one value"),
        ("middleware-kinds", ["a", "c"], "'c' is not one of a, b"),
        ("enforce-eager", False, "has no flag --no-enforce-eager"),
        ("enforce-eager", "yes", "'yes' is not a value for a switch. Write true or false"),
        ("max-num-seqs", None, "has no value"),
        ("kv-cache-dtype", True, "True is not a value"),
    ],
)
def test_what_vllm_would_not_take_is_refused_with_its_place(
    installed: vllm_flags.Installed, key: str, value: object, words: str
):
    with pytest.raises(UserError, match=words) as error:
        vllm_flags.check(installed, {key: value})
    assert error.value.where == f"target.args.{key}"


def test_an_interpreter_without_vllm_says_how_to_install_it(tmp_path: Path):
    python = str(interpreter(tmp_path, version=None))
    target = VllmTarget("m", {}, {}, python, 1)
    with pytest.raises(UserError, match=r"vLLM is not installed for .*pip install vllm"):
        asyncio.run(target.start())
    with pytest.raises(UserError, match="there is no /no/python"):
        asyncio.run(VllmTarget("m", {}, {}, "/no/python", 1).start())
    with pytest.raises(UserError, match="there is no folder /no/model"):
        asyncio.run(VllmTarget("/no/model", {}, {}, python, 1).start())


def fake_vllm(folder: Path, *how: str) -> Path:
    """An interpreter whose vLLM is the small server; it keeps the arguments and the environment it got."""
    path = folder / "python"
    flags = {name: [None, "", None] for name in ("--api-key", "--ssl-certfile", "--host", "--served-model-name")}
    answer = json.dumps({"version": "0.32.0", "command": False, "flags": {**FLAGS, **flags}})
    path.write_text(
        f"#!/bin/sh\nif [ \"$1\" = -c ]; then echo '{answer}'; exit; fi\n"
        f'echo "$*" > {folder}/arguments; env > {folder}/environment\n'
        'while [ $# -gt 1 ]; do [ "$1" = --port ] && port=$2; shift; done\n'
        f"exec {sys.executable} {SMALL_SERVER} $port {' '.join(how)}\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def launched(folder: Path, how: str, args: dict[str, object], access: Access) -> tuple[str, ...]:
    async def scenario() -> tuple[str, ...]:
        target = VllmTarget("m", {"served-model-name": "m", **args}, {}, str(fake_vllm(folder, how)), 20, access)
        try:
            return await target.start()
        finally:
            await target.stop()

    return asyncio.run(scenario())


async def key_header() -> dict[str, str]:
    return {"Authorization": "Bearer sesame"}


@pytest.mark.parametrize(("given", "passed"), [({}, True), ({"enable-prompt-tokens-details": False}, False)])
def test_cached_tokens_are_told_unless_switched_off(tmp_path: Path, given: dict[str, object], passed: bool):
    flags = {**FLAGS, "--no-enable-prompt-tokens-details": [None, "", 0]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "FLAGS", flags)
        launched(tmp_path, "", given, OPEN)
    assert ("--enable-prompt-tokens-details" in (tmp_path / "arguments").read_text().split()) is passed


def test_flags_that_could_not_be_checked_are_said(tmp_path: Path):
    python = fake_vllm(tmp_path)
    python.write_text(python.read_text().replace('"flags": {', '"unknown": {'))

    async def scenario() -> list[str]:
        target = VllmTarget("m", {"served-model-name": "m", "no-such-flag": 1}, {}, str(python), 20)
        await target.start()
        await target.stop()
        return target.life.notices

    assert "the flags were not checked" in asyncio.run(scenario())[0]


def test_a_server_with_an_api_key_is_asked_with_it_and_no_list_of_processes_shows_it(tmp_path: Path):
    launched(tmp_path, "key=sesame", {"api-key": "sesame"}, Access(key_header))
    assert "sesame" not in (tmp_path / "arguments").read_text()
    assert "VLLM_API_KEY=sesame" in (tmp_path / "environment").read_text()


@pytest.mark.parametrize(("host", "on"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_only_a_server_that_nobody_else_reaches_tells_its_resolved_settings(tmp_path: Path, host: str, on: bool):
    launched(tmp_path, "", {"host": host}, OPEN)
    assert ("VLLM_SERVER_DEV_MODE=1" in (tmp_path / "environment").read_text()) is on


def test_a_server_whose_key_is_not_told_says_where_to_name_it(tmp_path: Path):
    with pytest.raises(UserError, match=r"target\.auth: the server refuses access \(HTTP 401\).*auth: \{env"):
        launched(tmp_path, "key=sesame", {"api-key": "sesame"}, OPEN)


def test_a_server_with_a_certificate_is_spoken_to_in_tls(tmp_path: Path):
    pem = tmp_path / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", tmp_path / "crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    with pem.open("a") as file:
        file.write((tmp_path / "crt").read_text())

    async def nothing() -> dict[str, str]:
        return {}

    access = Access(nothing, Trust(ca=str(tmp_path / "crt")))
    (url,) = launched(tmp_path, f"tls={pem}", {"ssl-certfile": str(pem)}, access)
    assert url.startswith("https://127.0.0.1:")
