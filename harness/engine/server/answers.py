"""Where a request's tokens go: a server-sent event each, or one JSON body at the end.

The life of a streamed token: `StreamedAnswer.token` joins three ready byte strings (before, the token's text, after)
into one HTTP chunk and hands it to the transport: one `send` a token, about 5 us. No object outlives it.
The shapes, field for field and in their order, are those of vLLM 0.32's answers.
"""

import asyncio
import time
from typing import Any

import orjson

from tailgate.harness.engine import SIMULATED_OWNER
from tailgate.harness.engine.config import Resolved
from tailgate.harness.engine.model.scheduler import EngineSequence
from tailgate.harness.engine.model.tokenizer import Babble
from tailgate.harness.engine.server.requests import ApiRequest


class EngineAnswer:
    """What both kinds of answer share: the identity of an answer, its usage and its metrics."""

    def __init__(self, sequence: EngineSequence, asked: ApiRequest, resolved: Resolved, babble: Babble) -> None:
        self.sequence = sequence
        self.asked = asked
        self.resolved = resolved
        self.babble = babble
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        kind = "chatcmpl" if asked.chat else "cmpl"
        self.id = f"{kind}-{sequence.request_id}"
        self.created = int(time.time())

    def usage(self) -> dict[str, Any]:
        prompt, output = self.sequence.prompt_tokens, self.sequence.generated
        usage: dict[str, Any] = {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
        if self.resolved.settings.enable_prompt_tokens_details:
            usage["prompt_tokens_details"] = {"cached_tokens": self.sequence.cached_tokens}
        return usage

    def metrics(self) -> dict[str, float] | None:
        """The request's own times in milliseconds; None where the server was not told to give them."""
        s = self.sequence
        if not self.resolved.settings.enable_per_request_metrics:
            return None
        if s.scheduled_s is None or s.first_token_s is None or s.last_token_s is None:
            return None
        total, generation = s.last_token_s - s.arrival_s, s.last_token_s - s.first_token_s
        return {
            "time_to_first_token_ms": (s.first_token_s - s.arrival_s) * 1e3,
            "generation_time_ms": generation * 1e3,
            "queue_time_ms": (s.scheduled_s - s.arrival_s) * 1e3,
            "mean_itl_ms": generation * 1e3 / (s.generated - 1) if s.generated > 1 else 0.0,
            "tokens_per_second": s.generated / total if total > 0 else 0.0,
        }

    def text(self) -> str:
        texts = self.asked.texts
        return "".join(
            self.babble.pieces(self.asked.babble_offset, self.sequence.generated) if texts is None else texts
        )

    def token_ids(self) -> list[int]:
        return self.babble.tokens(self.asked.babble_offset, self.sequence.generated)


class WholeAnswer(EngineAnswer):
    """An answer that is not streamed."""

    def token(self, last: bool) -> None:
        if last and not self.done.done():
            self.done.set_result(None)

    def body(self) -> dict[str, Any]:
        asked = self.asked
        end = {"logprobs": None, "finish_reason": self.sequence.finish_reason, "stop_reason": asked.stop_reason}
        ids = self.token_ids() if asked.return_token_ids else None
        prompt = asked.prompt_ids if asked.return_token_ids else None
        shared = {
            "system_fingerprint": SIMULATED_OWNER,
            "usage": {"prompt_tokens_details": None, **self.usage()},
            "metrics": self.metrics(),
        }
        if asked.chat:
            message = {"role": "assistant", "content": self.text(), "refusal": None, "reasoning": None}
            return {
                "id": self.id,
                "object": "chat.completion",
                "created": self.created,
                "model": self.resolved.model_name,
                "choices": [{"index": 0, "message": message, **end, "token_ids": ids}],
                "prompt_token_ids": prompt,
                **shared,
            }
        choice = {"index": 0, "text": self.text(), **end, "token_ids": ids, "prompt_token_ids": prompt}
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.resolved.model_name,
            "choices": [choice],
            **shared,
        }


class StreamedAnswer(EngineAnswer):
    """An answer as server-sent events, each its own HTTP chunk; bare where the client's HTTP knows no chunks."""

    def __init__(
        self,
        sequence: EngineSequence,
        asked: ApiRequest,
        resolved: Resolved,
        babble: Babble,
        transport: asyncio.WriteTransport,
        chunked: bool,
    ) -> None:
        super().__init__(sequence, asked, resolved, babble)
        self._transport = transport
        self._chunked = chunked
        self._at = asked.babble_offset
        self._plain = chunked and asked.texts is None and not (asked.return_token_ids or asked.continuous_usage)
        self._head = b'{"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            orjson.dumps(self.id),
            b"chat.completion.chunk" if asked.chat else b"text_completion",
            self.created,
            orjson.dumps(resolved.model_name),
        )
        before = b'{"index":0,"delta":{"content":' if asked.chat else b'{"index":0,"text":'
        self._before = b"data: " + self._head + before
        self._after = self._end_of_choice(b"null", b"null", b"null", b"null") + b"]}\n\n"
        self._fixed = len(self._before) + len(self._after)

    def token(self, last: bool) -> None:
        """Send the next token; the first is preceded by chat's role chunk, the last followed by the end."""
        transport = self._transport
        if transport.is_closing():
            return
        if self.sequence.generated == 1 and self.asked.chat:
            self._role()
        words = self.babble.text
        at = self._at % len(words)
        self._at += 1
        text = words[at]
        if self._plain and not last:
            transport.write(b"%x\r\n%b%b%b\r\n" % (self._fixed + len(text), self._before, text, self._after))
            return
        self._rare(text, self.babble.ids[at], last)
        if last:
            self._finish()

    def _rare(self, text: bytes, token: int, last: bool) -> None:
        """A chunk that carries more than the babble's text: token ids, running usage, a cut, or the end."""
        asked = self.asked
        ids = prompt = stop = b"null"
        if asked.texts is not None:
            text = orjson.dumps(asked.texts[self.sequence.generated - 1])
        if asked.return_token_ids:
            ids = b"[%d]" % token
            if self.sequence.generated == 1 and not asked.chat:
                prompt = orjson.dumps(asked.prompt_ids)
        reason = b'"%b"' % self.sequence.finish_reason.encode() if last else b"null"
        if last:
            stop = orjson.dumps(asked.stop_reason)
        event = self._before + text + self._end_of_choice(reason, stop, prompt, ids) + b"]"
        if asked.continuous_usage:
            event += b',"usage":' + orjson.dumps(self.usage())
        if last and not asked.include_usage:
            event += b',"system_fingerprint":"%b"' % SIMULATED_OWNER.encode()
        self._write(event + b"}\n\n")

    def _end_of_choice(self, reason: bytes, stop: bytes, prompt: bytes, ids: bytes) -> bytes:
        if self.asked.chat:
            stopped = b"" if reason == b"null" else b',"stop_reason":%b' % stop
            return b'},"logprobs":null,"finish_reason":%b%b,"token_ids":%b}' % (reason, stopped, ids)
        return b',"logprobs":null,"finish_reason":%b,"stop_reason":%b,"prompt_token_ids":%b,"token_ids":%b}' % (
            reason,
            stop,
            prompt,
            ids,
        )

    def _role(self) -> None:
        prompt = orjson.dumps(self.asked.prompt_ids if self.asked.return_token_ids else None)
        delta = b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        self._write(b"data: " + self._head + delta + b'],"prompt_token_ids":%b,"prompt_text":null}\n\n' % prompt)

    def _finish(self) -> None:
        if self.asked.include_usage:
            tail: dict[str, Any] = {"usage": self.usage(), "system_fingerprint": SIMULATED_OWNER}
            metrics = self.metrics()
            if metrics is not None:
                tail["metrics"] = metrics
            self._write(b"data: " + self._head + b"]," + orjson.dumps(tail)[1:] + b"\n\n")
        self._write(b"data: [DONE]\n\n")
        if not self.done.done():
            self.done.set_result(None)

    def _write(self, event: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event) if self._chunked else event)
