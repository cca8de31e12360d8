"""The engine in real time: one task that runs step after step by absolute deadlines.

A step that begins at `t` and takes `d` delivers its tokens at `t + d`, and the next one begins then, however
late this process came round to it; the lateness is measured. Only when it is more than `GIVE_UP_S` behind
is the schedule begun anew (counted: the simulation was overloaded). HTTP is not known here: a request brings
its `sink`.
"""

import asyncio
import math
import random
import time
from typing import Protocol

from tailgate.harness.engine.config import Resolved
from tailgate.harness.engine.model.kv_cache import BlockPool
from tailgate.harness.engine.model.scheduler import EngineSequence, Scheduler
from tailgate.harness.engine.server.metrics import EngineMetrics
from tailgate.harness.engine.server.timer import Timer

GIVE_UP_S = 0.1


class Sink(Protocol):
    """Where a request's tokens go."""

    def token(self, last: bool) -> None:
        """Take the next token."""


class Engine:
    """Owns scheduler, cache and metrics; `run` is its one task."""

    def __init__(self, resolved: Resolved) -> None:
        settings = resolved.settings
        self.resolved = resolved
        self.scheduler = Scheduler(
            BlockPool(resolved.num_gpu_blocks),
            block_size=settings.block_size,
            max_num_seqs=resolved.max_num_seqs,
            max_num_batched_tokens=resolved.max_num_batched_tokens,
            by_priority=settings.scheduling_policy == "priority",
        )
        self.metrics = EngineMetrics(resolved, self.scheduler)
        self._rng = random.Random(settings.seed)
        self._sinks: dict[EngineSequence, Sink] = {}
        self._wake = asyncio.Event()

    def submit(self, sequence: EngineSequence, sink: Sink) -> None:
        self._sinks[sequence] = sink
        self.scheduler.submit(sequence)
        self._wake.set()

    def abort(self, sequence: EngineSequence) -> None:
        """Remove a request whose client has gone; nothing happens if it had ended."""
        if self.scheduler.abort(sequence):
            del self._sinks[sequence]
            self.metrics.ended(sequence, "abort")

    async def run(self) -> None:
        timer = Timer(asyncio.get_running_loop())
        try:
            begin = time.monotonic()
            while True:
                step = self.scheduler.schedule(begin)
                if not step.parts:
                    self._wake.clear()
                    await self._wake.wait()
                    begin = time.monotonic()
                    continue
                deadline = begin + self.resolved.step_time.seconds(step.shape) * self._jitter()
                await timer.sleep_until(deadline)
                now = time.monotonic()
                outcome = self.scheduler.complete(step, now)
                self.metrics.stepped(step, outcome, now)
                for sequence in outcome.ended:
                    self._sinks.pop(sequence).token(True)
                    self.metrics.ended(sequence, sequence.finish_reason)
                sinks = self._sinks
                for sequence in outcome.emitted:
                    sink = sinks.get(sequence)
                    if sink is not None:
                        sink.token(False)
                self.metrics.lateness.observe(time.monotonic() - deadline)  # of the last token written
                begin = deadline
                if now - deadline > GIVE_UP_S:
                    begin = now
                    self.metrics.overruns += 1
        finally:
            timer.close()

    def _jitter(self) -> float:
        sigma = self.resolved.settings.jitter
        return self._rng.lognormvariate(-(sigma**2) / 2, sigma) if sigma else 1.0


def natural_length(rng: random.Random, median: int) -> int:
    """How long an answer is whose end is left to the model: lognormal with sigma 0.7, at least one token."""
    return max(1, round(math.exp(rng.gauss(math.log(median), 0.7))))
