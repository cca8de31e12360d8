"""The load phase, from ready to over: what the Locust process and the injectors say, and what ends a run early.

A run ends when every injector has; before that when the person interrupts it, its server dies, `abort_if` trips, or
its deadline has passed. Whatever happens, what was measured is kept and the outcome says how it ended.
"""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tailgate.harness.load import fallbacks
from tailgate.harness.load.event_log import EventLog
from tailgate.harness.load.interrupts import Interruption
from tailgate.harness.load.kill_switch import KillSwitch
from tailgate.harness.load.locust_process import LocustProcess, Message
from tailgate.harness.targets.base import Ended, Target
from tailgate.reports.rundir.manifest import Manifest

# After the drain's end an injector has this long to write its last records before it counts as hung.
_GRACE_S = 15.0
# So many fewer users than planned, on average, are worth a notice, and not that they need a moment to come.
_USERS_MISSING = 0.05
_USERS_COMING_S = 0.5


class Watcher:
    """What a person sees of a run while it goes on. This one shows nothing; `harness.load.progress` has the other."""

    def note(self, text: str) -> None:
        """Show one line about what happens now."""

    def began(self, seconds: float | None, due_s: npt.NDArray[np.float64] | None) -> None:
        """The load begins; for ``seconds`` requests are sent, None: until their number is reached.

        ``due_s``: rising planned times, None in a closed loop.
        """

    def tick(self, message: Message) -> None:
        """Take an injector's figures of the last second."""

    def gpu(self, text: str) -> None:
        """Show what the GPUs do, in a few words."""

    def closing(self) -> None:
        """No more requests are sent; those in flight end."""

    def ended(self) -> None:
        """The load is over."""


@dataclass
class LoadOutcome:
    """How the load phase went."""

    state: str = "complete"
    reason: str = ""
    failed_side: str = ""
    ended_ns: int = 0


class Listener:
    """Follows the load phase to its end and records it in a `LoadOutcome`."""

    def __init__(
        self, locust: LocustProcess, manifest: Manifest, watcher: Watcher, target: Target, switch: KillSwitch,
        events: EventLog, key_refused: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._locust = locust
        self._manifest = manifest
        self._watcher = watcher
        self._target = target
        self._switch = switch
        self._events = events
        self._key_refused = key_refused
        self._outcome = LoadOutcome()
        self._winding_down = False  # the injectors have been told to send nothing more
        self._told_to_stop = False  # the injectors have been told to stop
        drain_end = manifest.drain_end_ns or 0
        self._drain_s = max(drain_end - manifest.measure_end_ns, 0) / 1e9
        self._overdue_at = (manifest.t0_unix_ns + drain_end - time.time_ns()) / 1e9 + _GRACE_S + time.monotonic()

    async def until_over(self, interruption: Interruption) -> LoadOutcome:
        """Handle what the injectors send until all have ended."""
        enough = asyncio.create_task(interruption.wind_down.wait())
        at_once = asyncio.create_task(interruption.at_once.wait())
        death = asyncio.create_task(self._target.ended())
        receiving: asyncio.Task[Message | None] | None = None
        try:
            while True:
                receiving = receiving or asyncio.create_task(self._locust.receive())
                waiting: set[asyncio.Task[Any]] = {receiving}
                if not self._told_to_stop:
                    waiting |= {at_once, death} if self._winding_down else {enough, at_once, death}
                left = max(self._overdue_at - time.monotonic(), 0)
                done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._outcome.state = "failed"
                    self._outcome.reason = "the load generator did not end by its deadline"
                    break
                if not self._told_to_stop and at_once in done:
                    self._watcher.note("interrupted: what was measured is kept")
                    self._stop("interrupted", f"interrupted ({interruption.by})")
                elif not self._told_to_stop and death in done:
                    self._on_target_died(death.result())
                elif not self._winding_down and enough in done:
                    self._wind_down(f"interrupted ({interruption.by})")
                if receiving not in done:
                    continue
                message = receiving.result()
                receiving = None
                if message is None:
                    self._outcome.state, self._outcome.reason = "failed", "the Locust process ended unexpectedly"
                if message is None or message["op"] == "all-ended":
                    break
                self._on_message(message)
        finally:
            for task in (enough, at_once, death, receiving):
                if task is not None:
                    task.cancel()
        self._outcome.ended_ns = self._outcome.ended_ns or self._now()
        return self._outcome

    def _now(self) -> int:
        return time.time_ns() - self._manifest.t0_unix_ns

    def _wind_down(self, why: str) -> None:
        """Send nothing more and end the measure phase here; requests in flight may end as at any run's end."""
        self._winding_down = True
        self._watcher.closing()
        self._watcher.note(
            f"interrupted: no more requests are sent; those in flight have {self._drain_s:.0f} s (Ctrl-C again: none)"
        )
        self._outcome.state, self._outcome.reason = "interrupted", why
        self._manifest.measure_end_ns = min(self._manifest.measure_end_ns, max(self._now(), 0))
        self._locust.send({"op": "wind-down", "why": why})
        self._overdue_at = min(self._overdue_at, time.monotonic() + self._drain_s + _GRACE_S)

    def _stop(self, state: str, reason: str) -> None:
        self._told_to_stop = True
        self._outcome.state, self._outcome.reason = state, reason
        self._locust.send({"op": "stop", "why": reason})
        self._overdue_at = time.monotonic() + _GRACE_S

    def _note(self, kind: str, text: str, **more: Any) -> None:
        self._events.add({"t_ns": self._now(), "kind": kind, "text": text, **more})

    def _on_target_died(self, ended: Ended) -> None:
        """The server has ended, so the run is over; what was measured and the end of the server's log are kept."""
        self._note("server", ended.text, log=list(ended.log))
        self._watcher.note("\n".join([ended.text, *ended.log[-10:]]))
        self._stop("failed", ended.text)
        self._outcome.failed_side = "target"

    def _compare_users(self, mean: float, planned: float) -> None:
        """Users whose code ended them before their time are missing from the load."""
        seconds = (self._manifest.measure_end_ns - self._manifest.measure_start_ns) / 1e9
        if (planned - mean) * seconds > planned * max(_USERS_MISSING * seconds, _USERS_COMING_S):
            self._manifest.notices.append(
                f"{mean:.1f} users on average where {planned:.1f} were planned: some came late or ended early (see "
                "events.jsonl)"
            )

    def _on_message(self, message: Message) -> None:
        manifest, outcome = self._manifest, self._outcome
        match message["op"]:
            case "tick":
                self._watcher.tick(message)
                why = self._switch.tick(message, self._now() / 1e9)
                if why is not None and not (self._told_to_stop or self._winding_down):
                    self._note("abort", why.text)
                    self._watcher.note(f"stopped: {why.text}")
                    self._stop("aborted", why.text)
                    manifest.aborted_by = why.rule
            case "closing":  # the closed loop's last request was asked for
                manifest.measure_end_ns = min(manifest.measure_end_ns, message["at_unix_ns"] - manifest.t0_unix_ns)
                manifest.users = message["users"]
                self._watcher.closing()
                self._compare_users(message["users"]["mean"], message["planned_users"])
            case "event":
                more = {key: value for key, value in message.items() if key not in ("op", "kind", "text")}
                self._note(message["kind"], message["text"], **more)
                if message["kind"] in ("worker", "stalled"):
                    self._watcher.note(message["text"])
            case "unauthorized":
                self._key_refused()
            case "workers":
                manifest.workers = message["workers"]
            case "stopped":  # by somebody else than us: in Locust's web UI
                self._told_to_stop = True
                outcome.state, outcome.reason = "interrupted", message["why"]
            case "end":
                outcome.ended_ns = max(outcome.ended_ns, message["end_ns"])
                for notice in fallbacks.when_ended(manifest, message):
                    self._watcher.note(f"warning: {notice}")
                if message.get("failure"):
                    outcome.state, outcome.reason = "failed", message["failure"]
                    self._note("injector", message["failure"])
            case "failed":
                outcome.state, outcome.reason, outcome.failed_side = "failed", message["why"], "client"
                self._note("injector", outcome.reason)
                self._watcher.note(outcome.reason)
            case "crashed" | "died":
                text = message.get("error") or _ending(message["code"])
                outcome.state, outcome.reason = "failed", f"injector {message['injector']}: {text}"
                outcome.failed_side = "client"
                self._note("injector", outcome.reason)
                self._watcher.note(outcome.reason)
            case other:
                self._note(str(other), orjson.dumps(message).decode())


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
