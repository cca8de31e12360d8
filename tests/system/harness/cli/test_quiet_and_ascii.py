"""`--quiet` leaves the verdict; a terminal for ASCII gets ASCII from every command, and none ends for it."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.kit.command import SHORT, SIM, Tailgate

LOCALES = [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "", "LC_CTYPE": "", "LANG": "C"}]
NAME = "größer≥"
POLICY = "name: größer≥\nthresholds: {ttft: p50 < 10s}\n"


@pytest.fixture
def measured(tailgate: Tailgate, tmp_path: Path) -> Path:
    said = tailgate("run", "--target", SIM, *SHORT, "--name", NAME, "--out", "a", "--quiet")
    assert said.code in (0, 4), said.err
    (line,) = said.out.splitlines()
    assert line.startswith("PASS  " if said.code == 0 else "INVALID  ")
    return tmp_path / "a"


def test_quiet_prints_the_verdict_and_nothing_else(tailgate: Tailgate, measured: Path) -> None:
    assert len(tailgate("report", measured, "--quiet").out.splitlines()) == 1
    measured.with_name("p.yaml").write_text(POLICY, encoding="utf-8")
    said = tailgate("gate", "--policy", "p.yaml", measured, "--quiet")
    (line,) = said.out.splitlines()
    assert line.split("  ")[0] == {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE", 4: "INVALID"}[said.code]


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: next(name for name in locale if locale[name]))
def test_an_ascii_terminal_gets_ascii(tailgate: Tailgate, measured: Path, locale: dict[str, str]) -> None:
    measured.with_name("p.yaml").write_text(POLICY, encoding="utf-8")
    commands: list[list[str | Path]] = [
        ["run", "--target", SIM, *SHORT, "--name", NAME, "--out", "b"],
        ["report", measured],
        *(["report", measured, "--format", form] for form in ("json", "junit", "csv", "md")),
        ["compare", measured, "b", "--anyway"],
        ["gate", "--policy", "p.yaml", measured],
        ["gate", "--policy", "p.yaml", measured, "--json"],
        ["workload", "preview", "chat", "--rate", "9/s", "--duration", "60s", "-o", "w.html"],
        ["workload", "show", "chat-gateway", "--requests", "40"],
    ]
    for command in commands:
        said = tailgate(*command, env=locale)
        assert said.code in (0, 1, 3, 4), (command, said.err)
        assert said.out and said.out.isascii() and said.err.isascii(), (command, said.out, said.err)
        if "json" in command or "--json" in command:
            assert NAME in json.dumps(json.loads(said.out), ensure_ascii=False)
        if "junit" in command:
            assert ElementTree.fromstring(said.out) is not None


def test_an_error_is_ascii_too_and_says_each_thing_once(tailgate: Tailgate) -> None:
    nothing = ["workload", "plan", "chat", "--rate", "0.001/s", "--duration", "1s"]
    said = tailgate(*nothing, env=LOCALES[0])
    assert said.code == 2 and said.err.startswith("tailgate workload: the plan is empty")
