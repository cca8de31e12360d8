"""What prompts are made of: the target's own tokens of real text, asked for before any load.

`workloads.content` computes; this module asks `/tokenize`, measures what the server adds to a prompt, and verifies
on a sample that lengths come out exact.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from harness.spec import RunSpec
from harness.targets.base import Identity
from loadgen.injector.endpoint import public_name
from workloads.content import ContentTable, table_default, table_from_tokens
from workloads.corpus import chunks, corpus_text
from workloads.plan import Plan
from workloads.prompts import PromptMaker

_CHARS: Final = 240_000
_CHUNK_CHARS: Final = 12_000
_AT_ONCE: Final = 4
# Lengths of the sample that is verified, in tokens.
_SAMPLE: Final = (24, 61, 200, 777)


@dataclass
class Prompts:
    """Where an injector finds the table, how it uses it, and what a reader should know."""

    table: str
    options: dict[str, Any]
    notices: list[str] = field(default_factory=list)


async def prepare(http: aiohttp.ClientSession, identity: Identity, spec: RunSpec, plan: Plan, run_dir: Path) -> Prompts:
    """Make the content table of a run and verify it.

    Raises:
        UserError: chat needs text of exact lengths and the target's tokenizer can't give it.
    """
    mode = "chat" if spec.target.endpoint == "chat" else "ids"
    options: dict[str, Any] = {"block_tokens": plan.block_tokens, "mode": mode}
    table, notices = await _table(http, identity)
    if mode == "chat":
        overhead, more = await _chat_overhead(http, identity, table, options)
        options["chat_overhead_tokens"] = overhead
        notices += more
    path = run_dir / "spool" / "content.npz"
    table.save(path)
    return Prompts(str(path.resolve()), options, notices)


async def _table(http: aiohttp.ClientSession, identity: Identity) -> tuple[ContentTable, list[str]]:
    texts = chunks(corpus_text(_CHARS), _CHUNK_CHARS)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def tokens(text: str) -> tuple[str, list[int], list[str] | None] | None:
        async with gate:
            body = {"prompt": text, "add_special_tokens": False, "return_token_strs": True}
            answer = await _tokenize(http, identity, body)
        if answer is None or not isinstance(answer.get("tokens"), list):
            return None
        return text, answer["tokens"], answer.get("token_strs")

    first = await tokens(texts[0])
    if first is None:
        where = public_name(identity.urls[0])
        return table_default(), [
            f"{where} has no /tokenize: prompts are made without its tokenizer, a chat's length is approximate"
        ]
    others = await asyncio.gather(*(tokens(text) for text in texts[1:]))
    return table_from_tokens([first, *(piece for piece in others if piece is not None)]), []


async def _chat_overhead(
    http: aiohttp.ClientSession, identity: Identity, table: ContentTable, options: dict[str, Any]
) -> tuple[int, list[str]]:
    """What the chat template adds to a message, by asking for the counts of prompts of known length."""
    maker = PromptMaker(table, **options)
    counts: list[int] = []
    for seed, length in enumerate(_SAMPLE):
        body = {"messages": maker.messages(seed, [], length), "add_generation_prompt": True}
        answer = await _tokenize(http, identity, body)
        if answer is None or not isinstance(answer.get("count"), int):
            return 0, [f"{public_name(identity.urls[0])} can't count a chat's tokens: prompt lengths are approximate"]
        counts.append(answer["count"] - length)
    if len(set(counts)) == 1:
        return counts[0], []
    return min(counts), [
        f"chat prompts can't be cut exactly with this tokenizer: off by up to {max(counts) - min(counts)}"
    ]


async def _tokenize(http: aiohttp.ClientSession, identity: Identity, body: dict[str, Any]) -> dict[str, Any] | None:
    try:
        async with http.post(f"{identity.urls[0]}/tokenize", json={"model": identity.model, **body}) as response:
            answer = await response.json(content_type=None) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None
