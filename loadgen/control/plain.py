"""A locustfile of `LLMUser`s under plain `locust -f FILE --host URL`: the same client, Locust's own statistics.

The injector is started with the process's first user and ended when Locust quits. Each request is one of Locust's
(its response time is E2E, from the sending), with rows for TTFT and ITL beside it that don't count in the total.
Records are not kept: `tailgate run --locustfile FILE` does that.
"""

import atexit
import json
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from gevent.event import AsyncResult
from locust import User
from locust.env import Environment

from loadgen.control.channel import Message
from loadgen.control.station import Station, assertions_count
from loadgen.job import Job
from workloads.errors import UserError

if TYPE_CHECKING:
    from loadgen.llm import Answer, LLMUser

_READY_S = 30.0
_ASK_S = 10.0


class PlainStation(Station):
    """A station without a run around it.

    Raises:
        UserError: the target can't be asked for its model, or the injector refused.
    """

    def __init__(self, environment: Environment, user: "LLMUser") -> None:
        url = (user.host or environment.host or "").rstrip("/").removesuffix("/v1")
        if not url:
            raise UserError("no host: where does the server listen?", where="--host")
        headers = _key(user)
        model, dialect = _served(url, headers, user.model)
        super().__init__(1, self._hear)
        self._environment = environment
        self._prepared = AsyncResult()
        self._pending: dict[int, tuple[User, str, str, str | None]] = {}
        self._folder = tempfile.mkdtemp(prefix="tailgate-locust-")
        atexit.register(self._end)
        environment.events.quitting.add_listener(lambda **_: self._end())  # type: ignore[no-untyped-call]
        assertions_count(environment)
        job = Job(
            plan="", spool=self._folder, injector=0, injectors=1, loop="asked", urls=(url,), api="chat", model=model,
            dialect=dialect, headers=headers, run_nonce=os.urandom(4).hex(),
        )  # fmt: skip
        self.prepare(job.to_dict(), 0, 1, None)
        self._prepared.get(timeout=_READY_S)
        self.go(time.time_ns())

    def _hear(self, message: Message) -> None:
        match message["op"]:
            case "ready":
                self._prepared.set(True)
            case "refused":
                refusal = UserError(message["what"], where=message["where"], remedy=message["remedy"])
                self._prepared.set_exception(refusal)
            case "crashed" | "died":
                for answer in list(self._answers.values()):
                    answer.set_exception(RuntimeError(f"the injector ended: {message}"))

    def answered(self, user: User, kind: str, api: str, answer: "Answer") -> None:
        """Keep it until the user has had its say."""
        self._pending[answer.index] = (user, kind, api, None)
        entries = self._environment.stats.entries
        if answer.ok and answer.ttft_ms is not None and answer.e2e_ms is not None:
            entries[kind, "TTFT"].log(round(answer.ttft_ms), 0)
            if answer.chunks > 1:
                entries[kind, "ITL"].log(round((answer.e2e_ms - answer.ttft_ms) / (answer.chunks - 1)), 0)

    def judge(self, user: int, index: int, reason: str) -> None:
        """A user found an answer wrong."""
        self._pending[index] = (*self._pending[index][:3], reason)

    def settled(self, answer: "Answer") -> None:
        """Now it counts."""
        user, kind, api, reason = self._pending.pop(answer.index)
        error = reason or (None if answer.ok else f"{answer.status}: {answer.error}")
        self._environment.events.request.fire(  # type: ignore[no-untyped-call]
            request_type=api, name=kind, response_time=answer.e2e_ms or 0.0, response_length=answer.output_tokens or 0,
            exception=Exception(error) if error else None, context=user.context(), response=answer,
        )  # fmt: skip

    def _end(self) -> None:
        if self._folder:
            self.stop("Locust ends")
            self.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""


def _key(user: "LLMUser") -> dict[str, str]:
    if user.api_key_env is None:
        return {}
    key = os.environ.get(user.api_key_env, "")
    if not key:
        raise UserError(f"the environment variable {user.api_key_env} is not set", where=type(user).__name__)
    return {"Authorization": f"Bearer {key}"}


def _served(url: str, headers: dict[str, str], model: str | None) -> tuple[str, str]:
    """The model to ask for, and whose dialect the server speaks.

    Raises:
        UserError: nobody answers there, or not an OpenAI API.
    """
    request = urllib.request.Request(f"{url}/v1/models", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_ASK_S) as response:
            served: list[dict[str, Any]] = json.loads(response.read())["data"]
            first = served[0]["id"]
    except (urllib.error.URLError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"does not tell its models: {error}", where=f"{url}/v1/models") from error
    vllm = any(entry.get("owned_by") == "vllm" for entry in served)
    return model or first, "vllm" if vllm else "openai"
