"""Users of one's own: a Locust user whose client speaks to an LLM, timed by the injector.

    from loadgen import LLMUser, task

    class Copilot(LLMUser):
        @task
        def ask(self):
            answer = self.client.chat("Why is the sky blue?", max_tokens=200)
            if "Rayleigh" not in answer.text:
                answer.fail("no Rayleigh")

Under `tailgate run --locustfile FILE` every request is recorded like any other; the user's class is its class in the
report. Under plain `locust -f FILE` the same figures go to Locust's own statistics (`loadgen.control.plain`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import locust

if TYPE_CHECKING:
    from loadgen.control.station import Station

Messages = str | Sequence[dict[str, Any]]
_LIMITS: Final = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class Answer:
    """What came of one request. Times are milliseconds from its sending, None where nothing came.

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
    chunks: int
    index: int = field(repr=False)
    _judge: Callable[["Answer", str], None] = field(repr=False)

    def fail(self, reason: str) -> None:
        """Count this answer as an error: it arrived, but it is wrong. An answer that broke off is one already."""
        if self.ok:
            self._judge(self, reason)


class Client:
    """Sends a user's requests, one at a time, through its machine's injector."""

    def __init__(self, user: "LLMUser", station: "Station") -> None:
        self._user = user
        self._station = station
        self._number = station.next_user()
        self._turn = 0
        self.last: Answer | None = None

    def chat(self, messages: Messages, *, kind: str | None = None, **fields: Any) -> Answer:
        """One call of `/v1/chat/completions`; ``messages`` may be one user message's text.

        ``fields`` go into the request's body: max_tokens, temperature, tools, ... ``kind`` is the request's class in
        the report (default: the user's class name).
        """
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        return self._send("chat", {"messages": said, **fields}, kind)

    def complete(self, prompt: str | Sequence[int], *, kind: str | None = None, **fields: Any) -> Answer:
        """One call of `/v1/completions`; a prompt of numbers is one of token ids."""
        return self._send(
            "completions", {"prompt": prompt if isinstance(prompt, str) else list(prompt), **fields}, kind
        )

    def _send(self, api: str, body: dict[str, Any], kind: str | None) -> Answer:
        self.settle()
        limit = next((body[name] for name in _LIMITS if body.get(name) is not None), None)
        name = kind or type(self._user).__name__
        done = self._station.request(
            self._number,
            {"api": api, "body": body, "class": name, "turn": self._turn, "output_tokens": limit},
        )
        self._turn += 1
        known = {name: done[name] for name in Answer.__dataclass_fields__ if name in done}
        self.last = Answer(**known, _judge=self._judge)
        self._station.answered(self._user, name, api, self.last)
        return self.last

    def _judge(self, answer: Answer, reason: str) -> None:
        self._station.judge(self._number, answer.index, reason)

    def settle(self) -> None:
        """Nothing more will be said of the last answer."""
        if self.last is not None:
            self._station.settled(self.last)
            self._station.said_all(self._number)
            self.last = None

    def leave(self) -> None:
        """The user is gone."""
        self.settle()
        self._station.said_all(self._number)  # also of an answer that came too late for it
        self._station.left(self._number)


class LLMUser(locust.User):
    """A user who talks to an LLM. Weights, tags, task sets, `wait_time`, `on_start`: all of Locust's.

    An `assert` that fails in a task counts as an error of the answer before it, any other exception as Locust's.
    """

    abstract = True
    # Plain `locust -f` only; under `tailgate run` the spec says these.
    model: str | None = None  # default: the first that the server tells
    api_key_env: str | None = None  # the environment variable with the API key

    def __init__(self, environment: locust.env.Environment) -> None:
        super().__init__(environment)
        self.client = Client(self, _station_of(self))
        wait_time = self.wait_time

        def after_the_task() -> float:
            self.client.settle()
            return float(wait_time())

        # Locust asks for the time to wait when a task has ended.
        self.wait_time = after_the_task  # type: ignore[method-assign]
        came, left = self.on_start, self.on_stop

        def start() -> None:
            self.client._station.came()
            came()

        def stop() -> None:
            left()  # type: ignore[no-untyped-call]
            self.client.leave()

        self.on_start, self.on_stop = start, stop  # type: ignore[method-assign]


def _station_of(user: LLMUser) -> "Station":
    environment = user.environment
    if not hasattr(environment, "station"):
        from loadgen.control.plain import PlainStation

        environment.station = PlainStation(environment, user)
    station: Station = environment.station
    return station
