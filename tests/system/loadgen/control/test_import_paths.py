"""Whose modules a run imports: our processes ours, whatever directories the user has; a locustfile the user's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.kit.openai import Answering, answering

# As one of the user's own could be: whoever imports it instead of ours ends at once.
POISON = "raise SystemExit('a module of the user was imported for one of ours')\n"
LOAD = ("--rate", "10/s", "--duration", "1s", "--prompt-tokens", "16", "--output-tokens", "2")
OURS = ("harness", "loadgen", "reports", "workloads")

LOCUSTFILE = """
from locust import constant
from tailgate import LLMUser, task

{imports}

class Asker(LLMUser):
    wait_time = constant(0.05)

    @task
    def ask(self):
        self.client.chat({prompt}, max_tokens=2)
"""


def run(cwd: Path, server: Answering, *flags: str | Path, pythonpath: Path) -> None:
    """`tailgate run`, itself shielded by Python's own flags: PYTHONPATH is for the processes that it starts."""
    out = cwd / "out"
    command = [sys.executable, "-E", "-P", "-m", "tailgate", "run", "--target", server.url, "--no-settle", "--out", out]
    ended = subprocess.run(
        [*map(str, [*command, *flags])], cwd=cwd, env={**os.environ, "PYTHONPATH": str(pythonpath)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode in (0, 4), ended.stdout + ended.stderr  # 4: the machine was too busy to measure well
    assert json.loads((out / "manifest.json").read_text())["state"] == "complete"


def poisoned(folder: Path) -> Path:
    """A directory with packages named like ours, and a `sitecustomize` that ends every Python which heeds it."""
    for name in OURS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(POISON)
    (folder / "sitecustomize.py").write_text(POISON)
    return folder


def prompts(server: Answering) -> set[str]:
    return {body["messages"][0]["content"] for _, body in server.asked}


def test_packages_named_like_ours_in_cwd_and_pythonpath_do_not_disturb_a_run(tmp_path: Path) -> None:
    mine = poisoned(tmp_path / "mine")
    with answering(lambda _body: ["a", "b"]) as server:
        run(mine, server, *LOAD, pythonpath=poisoned(tmp_path / "lib"))
    assert server.asked


def test_a_locustfile_imports_its_neighbour_and_what_pythonpath_names(tmp_path: Path) -> None:
    files, lib = tmp_path / "files", tmp_path / "lib"
    files.mkdir()
    lib.mkdir()
    (files / "neighbour.py").write_text("WORD = 'beside'\n")
    (lib / "found_by_path.py").write_text("WORD = 'by path'\n")
    text = LOCUSTFILE.format(
        imports="import found_by_path\nimport neighbour", prompt="f'{neighbour.WORD}, {found_by_path.WORD}'"
    )
    (files / "locustfile.py").write_text(text)
    flags = ["--locustfile", files / "locustfile.py", "--users", "1", "--duration", "1s"]
    with answering(lambda _body: ["a", "b"]) as server:
        run(tmp_path, server, *flags, pythonpath=lib)
    assert prompts(server) == {"beside, by path"}


def test_a_locustfile_imports_the_users_own_package_though_ours_has_its_name(tmp_path: Path) -> None:
    mine = poisoned(tmp_path / "mine")
    (mine / "reports" / "__init__.py").write_text("WORD = 'the user’s own'\n")
    (mine / "locustfile.py").write_text(LOCUSTFILE.format(imports="import reports", prompt="reports.WORD"))
    flags = ["--locustfile", "locustfile.py", "--users", "1", "--duration", "1s"]
    with answering(lambda _body: ["a", "b"]) as server:
        run(mine, server, *flags, pythonpath=mine)
    assert prompts(server) == {"the user’s own"}
