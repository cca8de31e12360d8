"""Requests of users' own locustfiles: bodies come ready, one at a time, and are sent at once.

There is no plan to follow. Requests are written down instead (`asked-K.arrows`), and become the run's plan
when its records are collected; what a user's code said of an answer (`answer.fail`) likewise (`verdicts-K.arrows`).
Chat and completions may be mixed: the endpoints of the one stand before those of the other.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from tailgate.loadgen.injector.api.request_builder import RequestMaker, Row
from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.dispatcher import Dispatcher
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.http.endpoint import Endpoint
from tailgate.loadgen.job import Job
from tailgate.loadgen.records import LOCUSTFILE_REQUEST_SCHEMA, LOCUSTFILE_VERDICT_SCHEMA, NO_COUNT, Status
from tailgate.loadgen.spool import Spool

APIS: Final = ("chat", "completions")
_ERROR_CHARS: Final = 500


def _no_rows(_row: Row) -> bytes:
    raise NotImplementedError("users' code makes the bodies")


class LocustfileLoop:
    """Passes the requests of users' own code to the dispatcher."""

    def __init__(self, endpoints: list[Endpoint], dispatcher: Dispatcher, stats: ClientStats, job: Job) -> None:
        self._dispatcher = dispatcher
        self._stats = stats
        self._job = job
        self._makers = {api: RequestMaker(replace(job, api=api), endpoints, _no_rows) for api in APIS}
        folder = Path(job.spool)
        self._requests = Spool(folder / f"asked-{job.injector}.arrows", LOCUSTFILE_REQUEST_SCHEMA)
        self._verdicts = Spool(folder / f"verdicts-{job.injector}.arrows", LOCUSTFILE_VERDICT_SCHEMA)
        self._count = 0
        self._in_flight: dict[int, tuple[int, int, str]] = {}  # index -> user, the request's number for it, class
        self._last_answers: dict[int, tuple[int, int]] = {}  # user -> its last answer's number, and when that had ended
        self._unsettled: set[int] = set()  # numbers of answers that the users' code may still judge
        self._stopped = False

    @property
    def finished(self) -> bool:
        """Whether users have stopped asking and can't fail an answer any more."""
        return self._stopped and not self._unsettled

    def prepare(self, _now_ns: int) -> bool:
        """Return False: nothing can be made ahead."""
        return False

    def class_of(self, index: int) -> str:
        return self._in_flight[index][2]

    def renew_headers(self, headers: dict[str, str]) -> None:
        for maker in self._makers.values():
            maker.renew_headers(headers)

    def dispatch_body(self, message: dict[str, Any]) -> None:
        if self._stopped:
            return
        index = self._count * self._job.injectors + self._job.injector
        self._count += 1
        user, kind, asked_ns = message["user"], message["class"], message["at"]
        last_number, ended_ns = self._last_answers.pop(user, (0, 0))
        if last_number and last_number == message["after"]:  # else nobody got it
            # Of its way back only the answer's way to it is ours; what it did then is its own affair.
            self._stats.turnaround_lags.append(message["woke"] - ended_ns)
        urls = len(self._job.urls)
        server = self._dispatcher.least_loaded() if self._job.balance == "least-in-flight" else index % urls
        endpoint = APIS.index(message["api"]) * urls + server
        exchange = self._makers[message["api"]].wrap(index, orjson.dumps(message["body"]), endpoint)
        exchange.stream.reading.text = []
        exchange.handed_over_ns = asked_ns
        exchange.set_deadlines(asked_ns, self._job.timeout_ns)
        self._in_flight[index] = user, message["number"], kind
        session = user * self._job.injectors + self._job.injector  # users are numbered machine by machine
        self._requests.add((index, session, message["turn"], kind, message["output_tokens"]))
        self._dispatcher.dispatch(exchange, asked_ns)

    def ended(self, exchange: Exchange) -> dict[str, Any]:
        user, number, _ = self._in_flight.pop(exchange.index)
        self._unsettled.add(number)
        assert exchange.end_ns is not None
        self._last_answers[user] = number, exchange.end_ns
        stream, reading = exchange.stream, exchange.stream.reading
        begun = exchange.sent_ns or exchange.dispatched_ns or 0

        def after(stamp: int | None) -> float | None:
            return None if stamp is None else (stamp - begun) / 1e6

        return {
            "user": user,
            "number": number,
            "index": exchange.index,
            "ok": exchange.status is Status.OK,
            "status": str(exchange.status),
            "error": exchange.error,
            "http_status": exchange.http_status,
            "text": "".join(reading.text or []),
            "finish_reason": reading.finish_reason,
            "prompt_tokens": reading.prompt_tokens,
            "output_tokens": None if reading.output_tokens == NO_COUNT else reading.output_tokens,
            "ttft_ms": after(stream.first_ns),
            "e2e_ms": after(exchange.end_ns),
            "last_token_ms": after(stream.last_ns),
            "gaps_ms": self._gaps_ms(exchange),
            "chunks": reading.contents,
        }

    def _gaps_ms(self, exchange: Exchange) -> list[float]:
        """The gaps between tokens, where no record keeps them."""
        if not self._job.report_gaps:
            return []
        arrivals_us = np.frombuffer(exchange.stream.arrivals_us, np.uint32).astype(np.int64)
        gaps_ms: list[float] = (np.diff(arrivals_us) / 1e3).tolist()
        return gaps_ms

    def judge(self, index: int, error: str) -> None:
        self._verdicts.add((index, error[:_ERROR_CHARS]))

    def settled(self, number: int) -> None:
        self._unsettled.discard(number)

    def only_open(self, numbers: list[int]) -> None:
        """Users have stopped asking, and can fail only these answers yet."""
        self._unsettled.intersection_update(numbers)

    @property
    def spools(self) -> list[Spool]:
        return [self._requests, self._verdicts]

    def stop(self) -> None:
        self._stopped = True
