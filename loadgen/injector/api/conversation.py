"""Conversations whose later turns send the model's own answers again (`history: answers`), as a chat does.

Of the other kind (`history: resend`) the history is planned filler of the planned lengths, made from the plan alone;
here a turn's prompt is all that was really said before it, and what the plan adds. Its length is the plan's only about:
text that a model made is not cut where its tokenizer would cut it again. Chat, or completions with prompts as text.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from tailgate.loadgen.injector.api.openai_request import MadeBodies
from tailgate.loadgen.injector.api.request_builder import Row
from tailgate.loadgen.job import Job
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.prompts.prompts import PromptMaker


@dataclass
class _Talk:
    """What was said in a session so far, and how long the plan takes it for."""

    said: list[dict[str, str]] = field(default_factory=list)
    planned_tokens: int = 0


class Conversations:
    """The bodies of classes whose sessions have a memory. Prompts of token ids, which take no text, are a UserError."""

    def __init__(self, job: Job, prompts: PromptMaker, bodies: MadeBodies) -> None:
        self._chat = job.api == "chat"
        if not self._chat and job.content_options.get("mode", "ids") == "ids":
            raise UserError(
                "`history: answers` sends text again, but prompts are token ids",
                where="workload.sessions.history",
                remedy="Use endpoint: chat, or prompt: text.",
            )
        self._classes = frozenset(job.answers)
        self._prompts = prompts
        self._bodies = bodies
        self._overhead = job.content_options.get("chat_overhead_tokens" if self._chat else "overhead_tokens", 0)
        self._talks: dict[int, _Talk] = {}
        self._session_of: dict[int, int] = {}  # rows in flight whose answer the next turn needs

    def holds(self, row: Row) -> bool:
        return row.kind in self._classes

    def body(self, row: Row, *, followed: bool) -> bytes:
        """The body of a turn. If it is ``followed`` by another, that one will need the answer."""
        talk = self._talks.pop(row.session, None) or _Talk()
        added = row.prompt_tokens - talk.planned_tokens
        if row.turn == 0 or not talk.said or added < 1:  # also where the plan lets a history begin anew
            talk.said = [self._new(row, row.prefix_blocks if row.turn == 0 else [], row.prompt_tokens)]
        else:
            talk.said.append(self._new(row, [], added + self._overhead))
        talk.planned_tokens = row.prompt_tokens + row.output_tokens
        prompt: Any = talk.said if self._chat else "".join(piece["content"] for piece in talk.said)
        body = self._bodies.around(orjson.dumps(prompt), row)
        if followed:
            self._talks[row.session] = talk
            self._session_of[row.index] = row.session
        return body

    def _new(self, row: Row, blocks: list[int], tokens: int) -> dict[str, str]:
        if self._chat:
            return self._prompts.messages(row.content_seed, blocks, tokens)[0]
        return {"role": "user", "content": self._prompts.text(row.content_seed, blocks, tokens)}

    def answered(self, index: int, text: str) -> None:
        session = self._session_of.pop(index, None)
        if session is not None:
            self._talks[session].said.append({"role": "assistant", "content": text})
