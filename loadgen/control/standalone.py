"""A locustfile of `LLMUser`s under plain `locust -f FILE --host URL`: the same client, Locust's own statistics.

The injector is ready before Locust's clock starts (on its `init`, or on `test_start` where the host comes that late),
and ended when Locust quits. Each request is one of Locust's (its response time is E2E, from the sending to the last
token), with rows for TTFT and ITL (every gap) beside it that don't count in the total.
Records are not kept: `tailgate run --locustfile FILE` does that.
"""

import atexit
import os
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult
from locust import User
from locust.env import Environment
from locust.runners import MasterRunner

from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.control.coordinator import Coordinator, count_failed_assertions
from tailgate.loadgen.control.injectors import Injectors
from tailgate.loadgen.injector.http.endpoint import checked_route, redirect_target
from tailgate.loadgen.job import Job
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.json_text import json_of

if TYPE_CHECKING:
    from tailgate.loadgen.llm_user import Answer, LLMUser

_READY_S = 30.0
_ASK_S = 10.0


class StandaloneCoordinator(Coordinator):
    """A coordinator without a run around it. Raises a UserError if the target or the injector can't serve."""

    def __init__(self, environment: Environment, user: type["LLMUser"]) -> None:
        url = _host(environment, user)
        if not url:
            raise UserError("no host: where does the server listen?", where="--host")
        headers = _key(user)
        model, dialect = _served(url, headers, user.model)
        super().__init__(Injectors(1), self._on_message)
        self._environment = environment
        self._prepared = AsyncResult()
        self._wrong: dict[int, str] = {}  # index -> what its user found, until the answer is settled
        self._unsettled: set[int] = set()
        self._folder = tempfile.mkdtemp(prefix="tailgate-locust-")
        atexit.register(self._end)
        environment.events.quitting.add_listener(lambda **_: self._end())  # type: ignore[no-untyped-call]
        count_failed_assertions(environment)
        job = Job(
            plan="", spool=self._folder, injector=0, injectors=1, loop="locustfile", urls=(url,), api="chat",
            model=model, dialect=dialect, headers=headers, run_nonce=os.urandom(4).hex(), report_gaps=True,
        )  # fmt: skip
        self.prepare(job.to_dict(), 0, 1, None)
        with gevent.Timeout(_READY_S, UserError(f"the injector is not ready after {_READY_S:.0f} s")):
            self._prepared.get()
        self.go(time.time_ns())

    def _on_message(self, message: Message) -> None:
        match message["op"]:
            case "ready":
                self._prepared.set(True)
            case "refused":
                refusal = UserError(message["what"], where=message["where"], remedy=message["remedy"])
                self._prepared.set_exception(refusal)
            case "crashed" | "died":
                why = UserError(f"the injector ended: {message.get('error') or message.get('code')}")
                for waiting in [*self._answers.values(), *([] if self._prepared.ready() else [self._prepared])]:
                    waiting.set_exception(why)

    def on_answer(self, answer: "Answer") -> None:
        """Count its tokens at once. The request counts when the user can't fail it any more."""
        self._unsettled.add(answer.index)
        entries: Any = self._environment.stats.entries
        if answer.ok and answer.ttft_ms is not None:
            entries[answer.kind, "TTFT"].log(answer.ttft_ms, 0)
            for gap in answer.gaps_ms:
                entries[answer.kind, "ITL"].log(gap, 0)

    def judge(self, user: int, answer: "Answer", reason: str) -> None:
        if answer.index in self._unsettled:
            self._wrong[answer.index] = reason
        else:  # its request counts already
            self._environment.stats.log_error(answer.api, answer.kind, reason)

    def on_settled(self, user: User, answer: "Answer") -> None:
        self._unsettled.discard(answer.index)
        error = self._wrong.pop(answer.index, None) or (None if answer.ok else f"{answer.status}: {answer.error}")
        took_ms = answer.last_token_ms if answer.ok and answer.last_token_ms is not None else answer.e2e_ms
        self._environment.events.request.fire(  # type: ignore[no-untyped-call]
            request_type=answer.api, name=answer.kind, response_time=took_ms or 0.0,
            response_length=answer.output_tokens or 0, exception=Exception(error) if error else None,
            context=user.context(), response=answer,
        )  # fmt: skip

    def _end(self) -> None:
        if self._folder:
            self.stop("Locust ends")
            self.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""


def start_early(environment: Environment, users: Sequence[type["LLMUser"]]) -> None:
    """On Locust's `init`, so that no run time is spent on the injector's start. If it fails, print why and exit."""
    if not _wanted(environment, users) or not _host(environment, users[0]):
        return  # the web UI asks for the host later, and a worker's master tells it
    try:
        environment.coordinator = StandaloneCoordinator(environment, users[0])  # type: ignore[attr-defined]
    except UserError as error:
        print(f"tailgate: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def start_late(environment: Environment, users: Sequence[type["LLMUser"]]) -> None:
    if _wanted(environment, users):
        environment.coordinator = StandaloneCoordinator(environment, users[0])  # type: ignore[attr-defined]


def _wanted(environment: Environment, users: Sequence[type["LLMUser"]]) -> bool:
    return bool(users) and not hasattr(environment, "coordinator") and not isinstance(environment.runner, MasterRunner)


def _host(environment: Environment, user: type["LLMUser"]) -> str:
    return (user.host or environment.host or "").rstrip("/").removesuffix("/v1")


def _key(user: type["LLMUser"]) -> dict[str, str]:
    if user.api_key_env is None:
        return {}
    key = os.environ.get(user.api_key_env, "")
    if not key:
        raise UserError(f"the environment variable {user.api_key_env} is not set", where=user.__name__)
    return {"Authorization": f"Bearer {key}"}


def _served(url: str, headers: dict[str, str], model: str | None) -> tuple[str, str]:
    """The model to ask for and the server's dialect, or a UserError if it doesn't tell and none is named."""
    where = f"{url}/v1/models"
    proxy = checked_route(url).proxy
    proxies = urllib.request.ProxyHandler({url.partition(":")[0]: proxy} if proxy else {})
    try:
        with urllib.request.build_opener(proxies, _Stay).open(
            urllib.request.Request(where, headers=headers), timeout=_ASK_S
        ) as response:
            served: list[dict[str, Any]] = json_of(response.read())["data"]
            first = model or next(entry["id"] for entry in served if "*" not in entry["id"])
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400:
            target = redirect_target(where, error.headers.get("Location", "")) or "nowhere"
            raise UserError(f"redirects to {target}, and the load doesn't follow redirects", where=where) from error
        if model is None or error.code in (401, 403):
            raise UserError(f"does not tell its models: {error}", where=where) from error
        return model, "openai"
    except (ValueError, KeyError, StopIteration, TypeError) as error:
        if model is None:
            raise UserError(f"does not tell its models: {error}", where=where) from error
        return model, "openai"
    except (urllib.error.URLError, OSError) as error:
        raise UserError(f"does not tell its models: {error}", where=where) from error
    vllm = any(entry.get("owned_by") == "vllm" for entry in served)
    return first, "vllm" if vllm else "openai"


class _Stay(urllib.request.HTTPRedirectHandler):
    """Makes an error of a redirect."""

    def redirect_request(self, *_: object) -> None:
        return None
