"""The user class for locustfiles: a Locust user whose client speaks to an LLM, timed by the injector.

    from tailgate.loadgen import LLMUser, task

    class Copilot(LLMUser):
        @task
        def ask(self):
            answer = self.client.chat("Why is the sky blue?", max_tokens=200)
            if "Rayleigh" not in answer.text:
                answer.fail("no Rayleigh")

Under `tailgate run --locustfile FILE` every request is recorded like any other; the user's class is its class in the
report. Under plain `locust -f FILE` the same figures go to Locust's own statistics (`loadgen.control.standalone`).
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import locust

from tailgate.loadgen.job import meaning_changed
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.loadgen.control.coordinator import Coordinator

Messages = str | Sequence[dict[str, Any]]
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
# In a task that never ends, its code can fail only so many of the latest answers.
_MOST_OPEN: Final = 64


@dataclass(frozen=True)
class Answer:
    """The outcome of one request. Times are milliseconds from its sending, None where nothing came.

    `ok` says that the answer arrived whole; `status` and `error` say otherwise (`loadgen.records.Status`).
    """

    ok: bool
    status: str
    error: str | None
    http_status: int | None
    text: str  # all generated content; what came of it, if it broke off
    finish_reason: str | None
    prompt_tokens: int | None  # the server's count
    output_tokens: int | None
    ttft_ms: float | None
    e2e_ms: float | None
    last_token_ms: float | None
    chunks: int
    gaps_ms: tuple[float, ...] = field(repr=False)  # plain `locust` only: between its tokens' arrivals
    index: int = field(repr=False)
    number: int = field(repr=False)
    kind: str = field(repr=False)
    api: str = field(repr=False)
    _judge: Callable[["Answer", str], None] = field(repr=False)
    _faults: list[str] = field(default_factory=list, repr=False)

    def fail(self, reason: str) -> None:
        """Count this answer as an error, for the first reason given. One that broke off is an error already."""
        if self.ok and not self._faults:
            self._faults.append(reason)
            self._judge(self, reason)


class Client:
    """Sends a user's requests through its machine's injector."""

    def __init__(self, user: "LLMUser", coordinator: "Coordinator") -> None:
        self._user = user
        self._coordinator = coordinator
        self._number = coordinator.next_user()
        self._turn = 0
        self._open: deque[Answer] = deque()  # of this task, which its code may yet judge

    def chat(self, messages: Messages, *, kind: str | None = None, **fields: Any) -> Answer:
        """One call of `/v1/chat/completions`; ``messages`` may be one user message's text.

        ``fields`` go into the request's body: max_tokens, temperature, tools, ... ``kind`` is the request's class in
        the report (default: the user's class name).
        """
        as_messages = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        return self._send("chat", {"messages": as_messages, **fields}, kind)

    def complete(self, prompt: str | Sequence[int], *, kind: str | None = None, **fields: Any) -> Answer:
        """One call of `/v1/completions`. A prompt of numbers is one of token ids."""
        return self._send(
            "completions", {"prompt": prompt if isinstance(prompt, str) else list(prompt), **fields}, kind
        )

    def _send(self, api: str, body: dict[str, Any], kind: str | None) -> Answer:
        if why := meaning_changed(body):
            raise UserError(f"{why}: it is not sent", where=type(self._user).__name__)
        limit = next((body[name] for name in _LIMITS if body.get(name) is not None), None)
        name = kind or type(self._user).__name__
        turn, self._turn = self._turn, self._turn + 1
        done = self._coordinator.request(
            self._number, {"api": api, "body": body, "class": name, "turn": turn, "output_tokens": limit}
        )
        answer = Answer(**{key: done[key] for key in _REPORTED}, kind=name, api=api, _judge=self._judge)
        self._open.append(answer)
        self._coordinator.on_answer(answer)
        if len(self._open) > _MOST_OPEN:
            self._settle(self._open.popleft())
        return answer

    @property
    def last(self) -> Answer | None:
        return self._open[-1] if self._open else None

    def _judge(self, answer: Answer, reason: str) -> None:
        self._coordinator.judge(self._number, answer, reason)

    def _settle(self, answer: Answer) -> None:
        self._coordinator.on_settled(self._user, answer)
        self._coordinator.release_answer(self._number, answer.number)

    def settle(self) -> None:
        """Let go of the answers of a task that has ended: its code can't fail them any more."""
        while self._open:
            self._settle(self._open.popleft())

    def start(self) -> None:
        self._coordinator.user_started()

    def end(self) -> None:
        self.settle()
        self._coordinator.user_left(self._number)


_REPORTED: Final = tuple(
    name for name in Answer.__dataclass_fields__ if name not in ("kind", "api", "_judge", "_faults")
)


class LLMUser(locust.User):
    """A user who talks to an LLM. Weights, tags, task sets, `wait_time`, `on_start`: all of Locust's.

    An `assert` that fails in a task counts as an error of the answer before it, any other exception as Locust's.
    """

    abstract = True
    # Plain `locust -f` only; under `tailgate run` the spec says these.
    model: str | None = None  # default: the first that the server lists
    api_key_env: str | None = None  # the environment variable with the API key

    def __init__(self, environment: locust.env.Environment) -> None:
        super().__init__(environment)
        self.client = Client(self, _coordinator_of(self))
        wait_time = self.wait_time

        def after_the_task() -> float:
            self.client.settle()
            return float(wait_time())

        # Locust asks for the time to wait when a task has ended.
        self.wait_time = after_the_task  # type: ignore[method-assign]

    def run(self) -> None:  # type: ignore[misc]
        """Live as a Locust user does. It counts as a user for as long, however that ends."""
        self.client.start()
        try:
            super().run()  # type: ignore[no-untyped-call]
        finally:
            self.client.end()


def _coordinator_of(user: LLMUser) -> "Coordinator":
    if not hasattr(user.environment, "coordinator"):
        raise UserError("nobody is there to send its requests; the reason stands above", where=type(user).__name__)
    coordinator: Coordinator = user.environment.coordinator
    return coordinator


def _llm_user_classes(environment: locust.env.Environment) -> list[type[LLMUser]]:
    return [kind for kind in environment.user_classes if issubclass(kind, LLMUser)]


def _on_init(environment: locust.env.Environment, **_: Any) -> None:
    from tailgate.loadgen.control.standalone import start_early

    start_early(environment, _llm_user_classes(environment))


def _on_test_start(environment: locust.env.Environment, **_: Any) -> None:
    from tailgate.loadgen.control.standalone import start_late

    start_late(environment, _llm_user_classes(environment))


# Locust's global events are fired by plain `locust` only: under `tailgate run` the environment has its own.
locust.events.init.add_listener(_on_init)  # type: ignore[no-untyped-call]
locust.events.test_start.add_listener(_on_test_start)  # type: ignore[no-untyped-call]
