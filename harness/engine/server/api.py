"""vLLM's HTTP surface over the engine: routes, bodies in, status codes out. Tokens leave through `sinks`.

A client that hangs up cancels its handler, which aborts the request inside the engine.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from aiohttp import HttpVersion11, web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

from tailgate.harness.engine import SIMULATED_MARK, SIMULATED_OWNER
from tailgate.harness.engine.config import as_dict
from tailgate.harness.engine.model import tokenizer
from tailgate.harness.engine.model.scheduler import EngineSequence
from tailgate.harness.engine.realtime import Engine
from tailgate.harness.engine.server.answers import StreamedAnswer, WholeAnswer
from tailgate.harness.engine.server.gpu_page import PATH as GPU_PATH
from tailgate.harness.engine.server.gpu_page import GpuPage
from tailgate.harness.engine.server.parameters import ApiError, boolean
from tailgate.harness.engine.server.requests import (
    ApiRequest,
    chat_text,
    most_bytes,
    parse,
    prompt_ids,
    read,
    too_long,
)

VERSION = f"0.32.0{SIMULATED_MARK}"
_LONG_BODY = 2**16  # bytes from which reading a body could make the next step late
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Read = TypeVar("_Read")


def application(engine: Engine) -> web.Application:
    api = _Api(engine)
    longest = most_bytes(engine.resolved.max_model_len)
    app = web.Application(client_max_size=longest, middlewares=[_refusals])
    app.router.add_post("/v1/completions", api.completions)
    app.router.add_post("/v1/chat/completions", api.chat)
    app.router.add_post("/tokenize", api.tokenize)
    app.router.add_post("/detokenize", api.detokenize)
    app.router.add_post("/reset_prefix_cache", api.reset_prefix_cache)
    app.router.add_get("/v1/models", api.models)
    app.router.add_get("/health", api.health)
    app.router.add_get("/version", api.version)
    app.router.add_get("/load", api.load)
    app.router.add_get("/server_info", api.server_info)
    app.router.add_get("/metrics", api.metrics)
    if engine.meter is not None:
        app.router.add_get(GPU_PATH, gpus_handler(GpuPage(engine.resolved, engine.meter)))
    return app


def gpus_handler(page: GpuPage) -> Handler:
    """The handler of the page of simulated GPUs."""

    async def gpus(_request: web.Request) -> web.Response:
        return web.Response(text=page.render())

    return gpus


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _json(error.body(), error.status)
    except web.HTTPException as error:
        return _json({"detail": error.reason}, error.status)


class _Api:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._resolved = engine.resolved
        self._babble = tokenizer.Babble.seeded(engine.resolved.settings.seed)
        self._started = int(time.time())
        self._in_flight = 0
        self._registry = CollectorRegistry()
        self._registry.register(engine.metrics)
        ProcessCollector(registry=self._registry)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        now = time.monotonic()
        given_id = request.headers.get("X-Request-Id", "").encode(errors="replace").decode()

        def sequence_of(body: dict[str, Any]) -> tuple[EngineSequence, ApiRequest]:
            request_id = given_id or str(body.get("request_id") or secrets.token_hex(8))
            return read(body, chat=chat, request_id=request_id, now_s=now, resolved=self._resolved, babble=self._babble)

        sequence, asked = await self._read(request, sequence_of)
        self._refuse_when_full()
        self._in_flight += 1
        try:
            if not asked.stream:
                whole = WholeAnswer(sequence, asked, self._resolved, self._babble)
                self._engine.submit(sequence, whole)
                await whole.done
                return _json(whole.body())
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
            chunked = request.version >= HttpVersion11
            if chunked:
                response.enable_chunked_encoding()
            else:
                response.force_close()  # its end is the connection's
            await response.prepare(request)
            transport = request.transport
            if transport is None:  # gone while the head was written
                return response
            stream = StreamedAnswer(sequence, asked, self._resolved, self._babble, transport, chunked)
            self._engine.submit(sequence, stream)
            await stream.done
            await response.write_eof()
            return response
        finally:
            self._in_flight -= 1
            self._engine.abort(sequence)

    async def _read(self, request: web.Request, understand: Callable[[dict[str, Any]], _Read]) -> _Read:
        """What `understand` makes of a request's body; of a long one in a thread, so that no other client waits."""
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            context, most = self._resolved.max_model_len, most_bytes(self._resolved.max_model_len)
            raise too_long(context, request.content_length or most + 1, "bytes", most) from error
        if len(raw) < _LONG_BODY:
            return understand(parse(raw))
        return await asyncio.to_thread(lambda: understand(parse(raw)))

    def _refuse_when_full(self) -> None:
        limit = self._resolved.settings.max_num_queued_reqs
        scheduler = self._engine.scheduler
        if limit is not None and len(scheduler.running) + scheduler.waiting_count >= limit:
            self._engine.metrics.rejected += 1
            raise ApiError(503, "The engine is busy: its queue is full. Try again later.", "ServiceUnavailableError")

    async def tokenize(self, request: web.Request) -> web.Response:
        def answer(body: dict[str, Any]) -> web.Response:
            prompt = chat_text(body, self._resolved) if "messages" in body else body.get("prompt")
            ids = prompt_ids(prompt, self._resolved, bounded=False)
            strings = [tokenizer.decode([token]) for token in ids] if boolean(body, "return_token_strs") else None
            counted = {"count": len(ids), "max_model_len": self._resolved.max_model_len, "tokens": ids}
            return _json({**counted, "token_strs": strings})

        return await self._read(request, answer)

    async def detokenize(self, request: web.Request) -> web.Response:
        return await self._read(
            request, lambda body: _json({"prompt": tokenizer.decode(prompt_ids(body.get("tokens"), self._resolved))})
        )

    async def reset_prefix_cache(self, _request: web.Request) -> web.Response:
        return _json({"success": self._engine.scheduler.pool.forget()})

    async def models(self, _request: web.Request) -> web.Response:
        model = {
            "id": self._resolved.model_name,
            "object": "model",
            "created": self._started,
            "owned_by": SIMULATED_OWNER,
            "root": self._resolved.step_time.shape.name,
            "parent": None,
            "max_model_len": self._resolved.max_model_len,
        }
        return _json({"object": "list", "data": [model]})

    async def health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def version(self, _request: web.Request) -> web.Response:
        return _json({"version": VERSION})

    async def load(self, _request: web.Request) -> web.Response:
        return _json({"server_load": self._in_flight})

    async def server_info(self, _request: web.Request) -> web.Response:
        return _json({"vllm_config": as_dict(self._resolved), "vllm_env": {}, "simulated": True})

    async def metrics(self, _request: web.Request) -> web.Response:
        page = generate_latest(self._registry)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _json(content: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")
