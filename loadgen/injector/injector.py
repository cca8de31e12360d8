"""The injector: wires event loop, request source, dispatcher and recorder together for one run.

    job -> ready -> go -> (dispatch-next, finish, stop, headers)* -> end

Its process is the data plane: no gevent, no asyncio, one thread. Garbage collection is off while it measures;
nothing on the hot path makes cycles, so memory stays flat without it.
"""

import gc
import time
from collections import deque
from pathlib import Path
from typing import Any

from tailgate.loadgen.injector.api.request_builder import RequestMaker
from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.control_socket import ControlSocket
from tailgate.loadgen.injector.dispatcher import Dispatcher
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.http.endpoint import resolve
from tailgate.loadgen.injector.kernel_timestamps import StampKeeper
from tailgate.loadgen.injector.recording.live_stats import LiveStats
from tailgate.loadgen.injector.recording.recorder import Recorder
from tailgate.loadgen.injector.schedule.closed_loop import ClosedLoop
from tailgate.loadgen.injector.schedule.locustfile_loop import APIS, LocustfileLoop
from tailgate.loadgen.injector.schedule.open_loop import OpenLoop
from tailgate.loadgen.injector.schedule.sources import make_source
from tailgate.loadgen.job import PATHS, Job
from tailgate.loadgen.records import Status
from tailgate.loadgen.redact import Secrets
from tailgate.workloads.common.errors import UserError

_SECOND_NS = 1_000_000_000
_TENTH_NS = 100_000_000
_UNAUTHORIZED = 401
# Records wait at most this long.
_FLUSH_NS = 500_000_000


class Injector:
    """One injector for one run. `on_message` is called with each message from the control socket."""

    def __init__(self, loop: EventLoop, nice: int = 0) -> None:
        self._loop = loop
        self._nice = nice
        self.control: ControlSocket | None = None
        self._job: Job
        self._over = False
        self.began = False  # load is being sent: from now on nothing can be refused
        self._progress = (-1, -1)  # reads and ended requests, when there was last something new
        self._progress_ns = 0
        self._refused_key_reported_ns = 0  # when a refused key was last reported
        self._unread: deque[Exchange] = deque()  # answers that came whole and wait to be read
        self._stamps = StampKeeper()
        self._secrets = Secrets()

    def on_message(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "job":
                self._prepare(Job.from_dict(message["job"]))
            case "go":
                self._go(message["t0_unix_ns"])
            case "dispatch-next":
                assert isinstance(self._schedule, ClosedLoop)
                self._schedule.dispatch_next(message["user"], message["at"])
            case "left":
                if isinstance(self._schedule, ClosedLoop):
                    self._schedule.left(message["user"])
            case "dispatch-body":
                assert isinstance(self._schedule, LocustfileLoop)
                self._schedule.dispatch_body(message)
            case "judge":
                assert isinstance(self._schedule, LocustfileLoop)
                self._schedule.judge(message["index"], message["error"])
                self._live_stats.judged(message["class"])
            case "headers":
                self._renew(message["headers"])
            case "settled":
                assert isinstance(self._schedule, LocustfileLoop)
                self._schedule.settled(message["number"])
                if self._all_done():
                    self._finish()
            case "finish":  # no user asks any more, or the run is wound down; drain
                if isinstance(self._schedule, LocustfileLoop):
                    self._schedule.only_open(message["open"])
                self._schedule.stop()
                self._drain_from(time.monotonic_ns())
            case "stop":
                self.stop(message.get("why", "the run was stopped"))
            case other:
                raise ValueError(f"unknown message {other!r}")

    def _prepare(self, job: Job) -> None:
        self._job = job
        apis = APIS if job.loop == "locustfile" else (job.api,)
        endpoints = [resolve(url, PATHS[api], job.trust) for api in apis for url in job.urls]
        self._names = [endpoint.name for endpoint in endpoints]
        self._secrets.learn(job.headers)
        self._secrets.learn_settings(job.extra)
        for url in job.urls:
            self._secrets.learn_url(url)
        for endpoint in endpoints:
            self._secrets.learn({"Authorization": endpoint.authorization})
            self._secrets.learn({"Proxy-Authorization": endpoint.proxy_authorization})
        self._stats = ClientStats(job.injector)
        self._stats.kernel_stamps = job.stamps == "kernel" and self._stamps.available
        self._stats.delayed_acks = job.delayed_acks
        self._recorder = Recorder(Path(job.spool), job.injector)
        servers = len(job.urls)
        self._dispatcher = Dispatcher(self._loop, endpoints, servers, self._stats, self._ended, job.keepalive_ns)
        source = make_source(job, self._loop, endpoints, self._dispatcher, self._stats)
        self._schedule, self._maker = source.schedule, source.maker
        self._loop.may_pause = isinstance(self._schedule, OpenLoop) and not self._schedule.has_followers
        if isinstance(self._schedule, LocustfileLoop):
            self._recorder.write_first(self._schedule.spools)
        self._live_stats = LiveStats(source.class_of if job.by_class else None)
        while self._schedule.prepare(time.monotonic_ns()):
            pass
        gc.collect()
        gc.freeze()
        gc.disable()
        self._send({"op": "ready", "injector": job.injector, "rows": source.rows, "stamps": self._stats.kernel_stamps})

    def _renew(self, headers: dict[str, str]) -> None:
        """Use other headers from now on. If they are unfit the old ones stay, and the run is warned."""
        try:
            self._maker.renew_headers(headers)
        except UserError as error:
            self._send({"op": "warning", "injector": self._job.injector, "text": f"new headers refused: {error}"})
            return
        self._secrets.learn(headers)

    def _go(self, t0_unix_ns: int) -> None:
        self._t0_ns = t0_unix_ns
        self._stats.start(t0_unix_ns)
        self.began = True
        self._loop.idle = self._idle
        t0_mono = time.monotonic_ns() + t0_unix_ns - time.time_ns()
        self._loop.at(t0_mono, self._at_zero)
        if isinstance(self._schedule, OpenLoop):
            self._schedule.start(t0_unix_ns, t0_mono)
        elif isinstance(self._schedule, ClosedLoop):
            self._schedule.start(t0_unix_ns)
        if self._job.measure_end_ns is not None and self._job.loop == "open":
            self._drain_from(t0_mono + self._job.measure_end_ns)
        self._second_at = t0_mono
        self._loop.at(t0_mono + _SECOND_NS, self._second)
        self._loop.at(time.monotonic_ns() + _FLUSH_NS, self._flush_again)
        if self._all_done():
            self._finish()

    def _at_zero(self) -> None:
        """Begin the first interval of client statistics at the run's time zero."""
        self._stats.forget_cpu()
        self._loop.take_turn_max()
        self._tenth()

    def _tenth(self) -> None:
        if not self._over:
            self._stats.look_at_clock()
            self._loop.at(time.monotonic_ns() + _TENTH_NS, self._tenth)

    def _drain_from(self, mono_ns: int) -> None:
        self._loop.at(mono_ns + self._job.drain_ns, self._drained)
        if self._all_done():
            self._finish()

    def _idle(self, now_ns: int) -> bool:
        """Between reads, evaluate one answer and make one request; returns whether there is more to do at once."""
        if self._unread:
            # More than one where they pile up, so that a busy loop can't be left behind.
            for _ in range(1 + len(self._unread) // 64):
                self._settle(self._unread.popleft())
        return self._schedule.prepare(now_ns) or bool(self._unread)

    def _ended(self, exchange: Exchange) -> None:
        if exchange.status is None:
            self._unread.append(exchange)
        else:
            self._settle(exchange)

    def _settle(self, exchange: Exchange) -> None:
        if exchange.status is None:
            exchange.conclude()
        if exchange.error is not None:
            exchange.error = self._secrets.mask(exchange.error)
        full = self._recorder.ended(exchange.record(self._job.injector, self._names, self._t0_ns))
        self._live_stats.add(exchange)
        if exchange.http_status == _UNAUTHORIZED:
            self._report_refused_key()
        if isinstance(self._maker, RequestMaker):
            self._maker.answered(exchange)
        if isinstance(self._schedule, OpenLoop):
            self._schedule.ended(exchange)
        elif isinstance(self._schedule, LocustfileLoop):
            self._send({"op": "done", **self._schedule.ended(exchange)})
        else:
            user, think_ns = self._schedule.ended(exchange)
            ok = exchange.status is Status.OK
            self._send({"op": "done", "user": user, "ok": ok, "think_ns": think_ns, "error": exchange.error})
        if full:
            self._flush()
        if self._all_done():
            self._finish()

    def _report_refused_key(self) -> None:
        now = time.monotonic_ns()
        if now - self._refused_key_reported_ns > _SECOND_NS:
            self._refused_key_reported_ns = now
            self._send({"op": "unauthorized"})

    def _all_done(self) -> bool:
        if self._over or self._dispatcher.in_flight or self._unread or not self.began:
            return False
        return self._schedule.finished

    def _flush_again(self) -> None:
        self._flush()
        if not self._over:
            self._loop.at(time.monotonic_ns() + _FLUSH_NS, self._flush_again)

    def _flush(self) -> None:
        if why := self._recorder.flush():
            self.stop(why)

    def _second(self) -> None:
        if self._over:
            return
        self._close_interval()
        tick = self._live_stats.tick(self._dispatcher.open_exchanges(), time.time_ns())
        self._send({"op": "tick", "injector": self._job.injector, "in_flight": self._stats.in_flight, **tick})
        now = time.monotonic_ns()
        self._watch_for_life(now)
        while self._second_at + _SECOND_NS <= now:  # one row for as long as the process was held up
            self._second_at += _SECOND_NS
        self._loop.at(self._second_at + _SECOND_NS, self._second)

    def _watch_for_life(self, now_ns: int) -> None:
        """End a closed loop with a number of requests when the server hangs, or it would wait for ever."""
        if self._job.stall_ns is None:
            return
        progress = (self._stats.all_reads, self._live_stats.ended)
        if progress != self._progress or not self._dispatcher.in_flight:
            self._progress, self._progress_ns = progress, now_ns
        elif now_ns - self._progress_ns >= self._job.stall_ns:
            why = f"the server sent nothing for {self._job.stall_ns / 1e9:.0f} s"
            # Locust hears of it before the users hear of their requests' ends: they won't ask again.
            self._send({"op": "stalled", "why": why})
            self._dispatcher.give_up(Status.TIMEOUT, why)

    def _close_interval(self) -> None:
        self._recorder.interval(self._stats.close_interval(self._loop.take_turn_max()))

    def _drained(self) -> None:
        if not self._over:
            self._schedule.stop()
            self._dispatcher.give_up(Status.TIMEOUT, "still in flight when the drain ended")
            self._finish()

    def stop(self, why: str) -> None:
        """End now: requests in flight are cancelled, and records are kept."""
        if self._over or not self.began:
            self._loop.stop()
            return
        self._schedule.stop()
        self._dispatcher.give_up(Status.CANCELLED, why)
        self._finish()

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        while self._unread:
            self._settle(self._unread.popleft())
        gc.enable()
        self._close_interval()
        self._flush()
        self._recorder.close()
        self._dispatcher.close()
        self._stamps.close()
        end_ns = time.time_ns() - self._t0_ns
        self._send(
            {
                "op": "end",
                "injector": self._job.injector,
                "end_ns": end_ns,
                "failure": self._recorder.failure,
                "unstamped": self._stats.unstamped,
                "nice": self._nice,
                "acks_delayed": self._stats.acks_delayed,
                "waiting_peers": sorted(self._stats.waiting_peers),
                "reads": self._stats.all_reads,
                **self._live_stats.totals(),
            }
        )
        self._loop.stop()

    def _send(self, message: dict[str, Any]) -> None:
        if self.control is not None:
            self.control.send(message)
