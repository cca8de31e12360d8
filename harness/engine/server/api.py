"""vLLM's HTTP surface over the engine: routes, bodies in, status codes out. Tokens leave through `sinks`.

A client that hangs up cancels its handler, which aborts the request inside the engine.
"""

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

from tailgate.harness.engine import SIMULATED_MARK, SIMULATED_OWNER
from tailgate.harness.engine.config import as_dict
from tailgate.harness.engine.model import tokenizer
from tailgate.harness.engine.realtime import Engine
from tailgate.harness.engine.server.answers import StreamedAnswer, WholeAnswer
from tailgate.harness.engine.server.requests import ApiError, bad, chat_ids, prompt_ids, read

VERSION = f"0.32.0{SIMULATED_MARK}"
MAX_BODY_BYTES = 64 * 2**20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(engine: Engine) -> web.Application:
    api = _Api(engine)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_refusals])
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
    return app


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
        body = await _body(request)
        self._refuse_when_full()
        request_id = request.headers.get("X-Request-Id") or secrets.token_hex(8)
        sequence, asked = read(
            body, chat=chat, request_id=request_id, now_s=now, resolved=self._resolved, babble=self._babble
        )
        self._in_flight += 1
        try:
            if not asked.stream:
                whole = WholeAnswer(sequence, asked, self._resolved, self._babble)
                self._engine.submit(sequence, whole)
                await whole.done
                return _json(whole.body())
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            transport = request.transport
            if transport is None:  # gone while the head was written
                return response
            stream = StreamedAnswer(sequence, asked, self._resolved, self._babble, transport)
            self._engine.submit(sequence, stream)
            await stream.done
            await response.write_eof()
            return response
        finally:
            self._in_flight -= 1
            self._engine.abort(sequence)

    def _refuse_when_full(self) -> None:
        limit = self._resolved.settings.max_num_queued_reqs
        scheduler = self._engine.scheduler
        if limit is not None and len(scheduler.running) + scheduler.waiting_count >= limit:
            self._engine.metrics.rejected += 1
            raise ApiError(503, "The engine is busy: its queue is full. Try again later.", "ServiceUnavailableError")

    async def tokenize(self, request: web.Request) -> web.Response:
        body = await _body(request)
        vocabulary = self._resolved.step_time.shape.vocabulary
        ids = chat_ids(body) if "messages" in body else prompt_ids(body.get("prompt"), vocabulary)
        strings = [tokenizer.decode([token]) for token in ids] if body.get("return_token_strs") else None
        answer = {"count": len(ids), "max_model_len": self._resolved.max_model_len, "tokens": ids}
        return _json({**answer, "token_strs": strings})

    async def detokenize(self, request: web.Request) -> web.Response:
        ids = prompt_ids((await _body(request)).get("tokens"), self._resolved.step_time.shape.vocabulary)
        return _json({"prompt": tokenizer.decode(ids)})

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


async def _body(request: web.Request) -> Any:
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"JSON decode error: {error}", "Bad Request", "body") from error
    if not isinstance(body, dict):
        raise bad("the body must be a JSON object")
    return body


def _json(content: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")
