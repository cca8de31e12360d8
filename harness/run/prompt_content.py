"""What prompts are made of: the target's own tokens of a text, asked for before any load; or a log's own bodies.

`workloads.prompts.content_table` computes; this module asks `/tokenize`, measures what the server adds to a prompt,
and verifies on a sample that lengths come out exact.
"""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.host.http_client import json_body
from tailgate.harness.targets.base import Identity
from tailgate.loadgen.injector.http.endpoint import public_name
from tailgate.workloads.plan.plan import Plan
from tailgate.workloads.prompts.content_table import ContentTable, table_default, table_from_tokens, table_random
from tailgate.workloads.prompts.corpus import chunks, corpus_text
from tailgate.workloads.prompts.prompts import Mode, PromptMaker

_CHARS: Final = 240_000
_CHUNK_CHARS: Final = 12_000
_AT_ONCE: Final = 4
_PATIENCE: Final = aiohttp.ClientTimeout(total=5)  # a run can do without it
# Lengths of the sample that is verified, in tokens.
_SAMPLE: Final = (24, 61, 200, 777)


@dataclass
class Prompts:
    """Where an injector finds what prompts are made of, how it uses it, and what a reader should know.

    `table` is a content table's path, `bodies` that of a log whose bodies are sent instead. `facts` are for the
    manifest.
    """

    table: str | None
    options: dict[str, Any]
    bodies: str | None = None
    notices: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    tokenized: bool = False  # the target has a `/tokenize`

    def sent_as(self, mode: Mode) -> "Prompts":
        """These, or, where they are made to be sent otherwise, default ones that can be sent so."""
        same = self.bodies is not None or self.options.get("mode") == mode
        return self if same else Prompts(None, {"mode": mode})


async def prepare(
    http: aiohttp.ClientSession, identity: Identity, spec: RunSpec, mode: Mode, plan: Plan, run_dir: Path
) -> Prompts:
    """Make the content of a run, to be sent as ``mode`` says, and verify it."""
    if spec.workload.locustfile is not None:
        return Prompts(None, {}, facts={"kind": "locustfile"})
    if spec.workload.content.kind == "replay":
        assert spec.workload.trace is not None
        return Prompts(None, {}, str(spec.workload.trace.file), facts={"kind": "replay"})
    table, notices = await _table(http, identity, spec)
    path = run_dir / "spool" / "content.npz"
    table.save(path)
    facts = {"kind": spec.workload.content.kind, "digest": table.digest, "tokens": len(table.ids)}
    options = {"block_tokens": plan.block_tokens}
    made = Prompts(str(path.resolve()), options, notices=notices, facts=facts, tokenized=not notices)
    return await _sent_as(http, identity, made, table, mode)


async def otherwise(http: aiohttp.ClientSession, identity: Identity, prompts: Prompts, mode: Mode) -> Prompts:
    """The same content, made to be sent as token ids, to be sent as ``mode`` says."""
    if prompts.table is None:
        return prompts
    return await _sent_as(http, identity, prompts, ContentTable.load(Path(prompts.table)), mode)


async def _sent_as(
    http: aiohttp.ClientSession, identity: Identity, prompts: Prompts, table: ContentTable, mode: Mode
) -> Prompts:
    """Only what the server adds to a text depends on how it is sent."""
    options, notices = {**prompts.options, "mode": mode}, prompts.notices
    if mode != "ids" and prompts.tokenized:
        overhead, more = await _overhead(http, identity, table, options)
        options["chat_overhead_tokens" if mode == "chat" else "overhead_tokens"] = overhead
        notices = [*notices, *more]
    return replace(prompts, options=options, notices=notices)


async def _table(http: aiohttp.ClientSession, identity: Identity, spec: RunSpec) -> tuple[ContentTable, list[str]]:
    """The table that the spec asks for; a notice where the target has no tokenizer to be asked."""
    content = spec.workload.content
    text = corpus_text(_CHARS, content.file)
    pieces = await _tokenized(http, identity, chunks(text, _CHUNK_CHARS))
    where = public_name(identity.urls[0])
    if content.kind == "random":
        if not pieces:
            return table_random(32_000, spec.seed), [f"{where} has no /tokenize: random ids below 32,000 are sent"]
        # The largest id of a long real text is near the vocabulary's end, and sure to be in it.
        return table_random(1 + max(max(ids) for _, ids, _ in pieces), spec.seed), []
    if not pieces:
        return table_default(text=text if content.file else None), [
            f"{where} has no /tokenize: prompts are made without its tokenizer, the length of text is approximate"
        ]
    return table_from_tokens(pieces), []


async def _tokenized(
    http: aiohttp.ClientSession, identity: Identity, texts: list[str]
) -> list[tuple[str, list[int], list[str] | None]]:
    """Each text with its ids and token strings; empty where the target has no `/tokenize`."""
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
        return []
    others = await asyncio.gather(*(tokens(text) for text in texts[1:]))
    return [first, *(piece for piece in others if piece is not None)]


async def _overhead(
    http: aiohttp.ClientSession, identity: Identity, table: ContentTable, options: dict[str, Any]
) -> tuple[int, list[str]]:
    """What the server adds to a prompt of text (a chat template, a token at the beginning).

    Told by its counts of prompts of known length.
    """
    maker = PromptMaker(table, **options)
    chat = options["mode"] == "chat"
    counts: list[int] = []
    for seed, length in enumerate(_SAMPLE):
        body: dict[str, Any] = {"prompt": maker.text(seed, [], length)}
        if chat:
            body = {"messages": maker.messages(seed, [], length), "add_generation_prompt": True}
        answer = await _tokenize(http, identity, body)
        if answer is None or not isinstance(answer.get("count"), int):
            what = "a chat's" if chat else "a text's"
            return 0, [f"{public_name(identity.urls[0])} can't count {what} tokens: prompt lengths are approximate"]
        counts.append(answer["count"] - length)
    if len(set(counts)) == 1:
        return counts[0], []
    kind = "chat" if chat else "text"
    off = int(np.ptp(counts))
    return min(counts), [
        f"{kind} prompts can't be cut exactly with this tokenizer: lengths are off by up to {off} tokens"
    ]


async def _tokenize(http: aiohttp.ClientSession, identity: Identity, body: dict[str, Any]) -> dict[str, Any] | None:
    try:
        async with http.post(
            f"{identity.urls[0]}/tokenize", json={"model": identity.model, **body}, allow_redirects=False,
            timeout=_PATIENCE,
        ) as response:  # fmt: skip
            answer = await json_body(response)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None
