"""One replica on a virtual clock: the scheduler and pace of the engine in real time, without waiting.

Where nothing changes between steps (everybody decodes, nobody can be admitted, nobody ends) scheduling is left out:
time goes on step by step by the same additions, and blocks are taken and remembered in the same order, so that what
comes out is the same to the bit as with scheduling every step.
"""

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tailgate.harness.engine.config import Resolved, make_scheduler, variation_of
from tailgate.harness.engine.model.pace import StepPace
from tailgate.harness.engine.model.scheduler import (
    GROWING,
    Counters,
    EngineSequence,
    EngineStep,
    Scheduler,
    decoding_shape,
)

_JUST_UNDER: Final = 1.0 - 1e-9  # for sums of floats


@dataclass(slots=True, eq=False)
class VirtualSequence(EngineSequence):
    """A request in a replica; `row` is the caller's name for it.

    `spans` are the numbers of the steps that gave it tokens: from, to (exclusive), from, to, ...
    """

    row: int = 0
    spans: list[int] = field(default_factory=list)


class VirtualReplica:
    """Replica `number` (from 1). It has begun a step until `end_s` (inf: it is idle, or stands still)."""

    def __init__(self, resolved: Resolved, number: int, *, keep_tokens: bool = False, skip: bool = True) -> None:
        self.number = number
        self.resolved = resolved
        self.keep_tokens = keep_tokens
        self.alive = True
        self.accepting = True  # a router may give it requests
        self.frozen = False
        self.prompt_tokens = self.cached_tokens = self.generation_tokens = 0
        self.step_ends = array("d")
        self._skip = skip
        self._launches = 0
        self._before: Counter[str] = Counter()  # of earlier launches
        self._frozen_left_s = math.inf
        self.scheduler: Scheduler
        self.pace: StepPace
        self.launch(0.0)

    def launch(self, now_s: float) -> None:
        """Start (again) with an empty cache."""
        if self._launches:
            self._before = Counter({name: self.counted(name) for name in Counters.__slots__})
        self.scheduler = make_scheduler(self.resolved)
        self.pace = StepPace(
            self.resolved.step_time, variation_of(self.resolved.settings), self.resolved.settings.seed,
            self.number, self._launches, now_s,
        )  # fmt: skip
        self._launches += 1
        self._step: EngineStep | None = None
        self.end_s = math.inf
        self._steady = False
        self.alive, self.frozen, self.accepting = True, False, True

    @property
    def in_flight(self) -> int:
        return len(self.scheduler.running) + self.scheduler.waiting_count

    def counted(self, name: str) -> int:
        """A counter of the scheduler's, over all launches."""
        return self._before[name] + int(getattr(self.scheduler.counters, name))

    @property
    def full(self) -> bool:
        """Whether it refuses a request because of its queue's limit."""
        limit = self.resolved.settings.max_num_queued_reqs
        return limit is not None and self.in_flight >= limit

    def submit(self, sequence: VirtualSequence) -> None:
        self.scheduler.submit(sequence)

    def abort(self, sequence: VirtualSequence) -> bool:
        return self.scheduler.abort(sequence)

    def begin(self, now_s: float, horizon_s: float) -> None:
        """Begin the next step, if there is anything to do; steps that change nothing are done up to `horizon_s`."""
        if self.frozen or not self.alive or self._step is not None:
            return
        if self._skip and self._steady:
            now_s = self._skip_steps(now_s, horizon_s)
        step = self.scheduler.schedule(now_s)
        if step.parts:
            self._step = step
            self.end_s = self.pace.end(now_s, step.shape)

    def earliest_end_s(self) -> float:
        """No request of this replica's ends before, unless one is taken away or another one comes."""
        running, floor_s = self.scheduler.running, self.pace.floor_s
        if self._step is None or not floor_s or self.scheduler.waiting_count:
            return self.end_s
        steps = min(sequence.output_tokens - sequence.generated for sequence in running) - 1
        return self.end_s + steps * floor_s * _JUST_UNDER

    def finish(self) -> list[VirtualSequence]:
        """End the step that was begun; the sequences that are complete."""
        step, now = self._step, self.end_s
        assert step is not None
        self._step, self.end_s = None, math.inf
        self.pace.advance()
        outcome = self.scheduler.complete(step, now)
        number = len(self.step_ends)
        if self.keep_tokens:
            self.step_ends.append(now)
        self.generation_tokens += len(outcome.emitted)
        for sequence in outcome.emitted:
            assert isinstance(sequence, VirtualSequence)
            sequence.last_token_s = now
            if sequence.first_token_s is None:
                sequence.first_token_s = now
                self.prompt_tokens += sequence.prompt_tokens
                self.cached_tokens += sequence.cached_tokens
            if self.keep_tokens:
                _extend(sequence.spans, number, number + 1)
        self._steady = len(outcome.emitted) == len(self.scheduler.running) + len(outcome.ended)
        return outcome.ended  # type: ignore[return-value]

    def freeze(self, now_s: float) -> None:
        """Stand still with everything in flight, as a stopped process does."""
        if self.alive and not self.frozen:
            self.frozen, self._frozen_left_s, self.end_s = True, self.end_s - now_s, math.inf

    def thaw(self, now_s: float) -> None:
        if self.alive and self.frozen:
            self.frozen, self.end_s = False, now_s + self._frozen_left_s

    def kill(self) -> None:
        """Die: whatever was in flight is lost."""
        self.alive, self.frozen, self._step, self.end_s = False, False, None, math.inf

    def _skip_steps(self, now_s: float, horizon_s: float) -> float:
        """Do as many steps as change nothing and end before `horizon_s`; when the last of them ended."""
        scheduler, pool, pace = self.scheduler, self.scheduler.pool, self.pace
        running, size = scheduler.running, scheduler.block_size
        count = len(running)
        nobody_comes = not scheduler.waiting_count or count >= scheduler.max_num_seqs
        if not count or count > scheduler.max_num_batched_tokens or not nobody_comes:
            return now_s
        most = min(sequence.output_tokens - sequence.generated for sequence in running) - 1
        if most < 1:
            return now_s
        # A sequence takes a block when its last one is full, and from then on every `size` steps.
        takes: list[list[EngineSequence]] = [[] for _ in range(size)]
        for sequence in running:
            takes[len(sequence.blocks) * size - sequence.computed].append(sequence)
        shape = decoding_shape(running)
        done, phase = 0, 0
        while done < most:
            taking = takes[phase]
            if len(taking) > pool.free:
                break
            end = pace.end(now_s, shape)
            if not end < horizon_s:
                break
            for sequence in taking:
                sequence.blocks += pool.allocate(1)
            pace.advance()
            now_s = end
            if self.keep_tokens:
                self.step_ends.append(end)
            for name in GROWING:
                setattr(shape, name, getattr(shape, name) + count)
            done += 1
            phase = phase + 1 if phase + 1 < size else 0
            for sequence in takes[phase]:  # those whose last block is full now
                full = len(sequence.blocks) - 1
                if full < len(sequence.chain):
                    pool.remember(sequence.blocks[full], sequence.chain[full])
        if done:
            self.generation_tokens += count * done
            number = len(self.step_ends)
            for sequence in running:
                sequence.computed += done
                sequence.generated += done
                sequence.last_token_s = now_s
                if self.keep_tokens:
                    _extend(sequence.spans, number - done, number)  # type: ignore[attr-defined]
        return now_s


def _extend(spans: list[int], begin: int, end: int) -> None:
    if spans and spans[-1] == begin:
        spans[-1] = end
    else:
        spans += (begin, end)
