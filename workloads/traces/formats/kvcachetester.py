"""kv-cache-tester: recorded sessions of a coding agent, a JSON file each; a folder of them is a trace.

`requests[]` are steps (`t` seconds from the session's start, `in`, `out`, `hash_ids` of 64-token blocks,
`think_time`) and sub-agents, which nest steps of their own and become sessions of their own. A step follows the
answer of the step before, after its think time (tool run time included, on a 1 s clock). Block ids are local to
their file, so they are told apart by it; sessions all start at time 0 unless they are spread (`arrivals`).
github.com/callanjfox/kv-cache-tester, Apache-2.0.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.sampling.random_streams import RandomField
from tailgate.workloads.traces.formats.records import BadValueError, Request, block_ids, number, pieces, tokens, value
from tailgate.workloads.traces.rows import NO_PAUSE, Faults, Reader

BLOCK_TOKENS: Final = 64


def read(file: Path, faults: Faults) -> Reader:
    """The steps of one session file, or of all `*.json` and `*.json.gz` in a folder, session by session."""
    return pieces(_requests(file, faults), BLOCK_TOKENS)


def _requests(file: Path, faults: Faults) -> Iterator[Request]:
    files = sorted([*file.glob("*.json"), *file.glob("*.json.gz")]) if file.is_dir() else [file]
    if not files:
        raise UserError("the folder has no session file (*.json, *.json.gz)", where=str(file))
    session = 0
    for k, path in enumerate(files):
        faults.place = path.name
        content = _content(path)
        if content.get("block_size") not in (None, BLOCK_TOKENS):
            raise UserError(f"block_size is {content['block_size']}; only {BLOCK_TOKENS} is supported", where=str(path))
        names = RandomField(0, "kv-cache-tester", k)
        for steps, start_s in _sessions(content, path):
            yield from _steps(steps, start_s, session, names, path, faults)
            session += 1


def _content(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        content = orjson.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"can't be read: {error}", where=str(path)) from error
    except orjson.JSONDecodeError as error:
        raise UserError(f"is not JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict) or not isinstance(content.get("requests"), list):
        raise UserError("is not a kv-cache-tester session: it has no `requests`", where=str(path))
    return content


def _sessions(content: dict[str, Any], path: Path) -> Iterator[tuple[list[Any], float]]:
    """The session itself and its sub-agents, each with its start in seconds."""
    own: list[Any] = []
    nested: list[Any] = []
    for entry in content["requests"]:
        if not isinstance(entry, dict):
            raise UserError("`requests` holds an entry that is not a request", where=str(path))
        (nested if entry.get("type") == "subagent" else own).append(entry)
    yield own, 0.0
    for agent in nested:
        try:
            yield list(value(agent, "requests")), number(agent, "t")
        except (BadValueError, TypeError) as error:
            raise UserError(f"a sub-agent: {error}", where=str(path)) from error


def _steps(
    steps: list[Any], start_s: float, session: int, names: RandomField, path: Path, faults: Faults
) -> Iterator[Request]:
    for place, step in enumerate(steps):
        try:
            at_s = start_s + number(step, "t")
            think_s = number(step, "think_time") if "think_time" in step else 0.0
            blocks = np.array(block_ids(step, "hash_ids", bits=63), dtype=np.int64)
            yield Request(
                at_ns=round(at_s * 1e9),
                prompt_tokens=tokens(step, "in", least=1),
                output_tokens=tokens(step, "out"),
                session=session,
                think_ns=NO_PAUSE if place == 0 else round(max(think_s, 0.0) * 1e9),
                blocks=names.u64(blocks),
                class_name=str(step.get("model", "")) or None,
            )
        except (BadValueError, TypeError, ValueError) as error:
            faults.bad(place + 1, f"step {place + 1} of {path.name}: {error}")
