"""Who is in the next step: iteration-level continuous batching over a finite KV cache. Pure: it has no clock.

The rules are those of vLLM's V1 scheduler (design in vLLM's docs, "vLLM V1 guide"): running sequences come
first, each with its next token or the next chunk of its prompt; then waiting ones in order of arrival (or
of priority), as long as there is token budget, a place, and room for their whole prompt. Where the cache is
full the youngest running sequence is preempted: its blocks are freed and it computes everything again
later. A prefix found in the cache isn't computed; at least one token always is.

Iteration-level scheduling: Yu et al., Orca, OSDI 2022; chunked prefill: Agrawal et al., Sarathi-Serve, 2024.
"""

import heapq
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Final

from tailgate.harness.engine.model.kv_cache import BlockPool
from tailgate.harness.engine.model.step_law import StepShape


class State(Enum):
    """Where a sequence is."""

    NEW = 0
    WAITING = 1
    RUNNING = 2
    ENDED = 3


@dataclass(slots=True, eq=False)
class EngineSequence:
    """One request inside the engine. The length of its output is known to the simulation from the start.

    `chain` are the block hashes of prompt and output together (empty: nothing is shared). Times are seconds
    of the caller's clock.
    """

    request_id: str
    prompt_tokens: int
    output_tokens: int
    arrival_s: float
    chain: list[int] = field(default_factory=list)
    priority: int = 0
    finish_reason: str = "length"  # what it will be
    state: State = State.NEW
    computed: int = 0
    generated: int = 0
    blocks: list[int] = field(default_factory=list)
    given_cached: int = 0  # without a chain: tokens of the prompt that the cache holds whenever it is scheduled
    cached_tokens: int = 0  # found in the prefix cache when first scheduled
    preemptions: int = 0
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    order: int = 0


@dataclass(slots=True)
class EngineStep:
    """The sequences of a step with the number of tokens each computes, and what that amounts to."""

    parts: list[tuple[EngineSequence, int]]
    shape: StepShape


@dataclass(slots=True)
class StepOutcome:
    """What a finished step produced: the sequences that have a new token, and those of them that are complete."""

    emitted: list[EngineSequence]
    ended: list[EngineSequence]


@dataclass(slots=True)
class Counters:
    """Running totals since the start."""

    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    aborted: int = 0


class Scheduler:
    """The engine's queue, its running batch and its cache. The pool must hold the longest sequence.

    A `long_prefill_token_threshold` above 0 is the most tokens of one prompt in one step. Without `chunked_prefill` a
    prompt waits until the budget holds all of it, and everybody behind it waits too; the budget must hold the longest.
    With `by_priority` a lower `priority` comes first and is preempted last; otherwise first come, first served.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        block_size: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        by_priority: bool = False,
        long_prefill_token_threshold: int = 0,
        chunked_prefill: bool = True,
    ) -> None:
        self.pool = pool
        self.block_size = block_size
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.by_priority = by_priority
        self.long_prefill_token_threshold = long_prefill_token_threshold
        self.chunked_prefill = chunked_prefill
        self.running: list[EngineSequence] = []
        self.counters = Counters()
        self._waiting: list[tuple[int, int, EngineSequence]] = []  # a heap; sequences that ended are skipped
        self._waiting_count = 0
        self._submitted = 0

    @property
    def waiting_count(self) -> int:
        return self._waiting_count

    def prompt_tokens_left(self) -> int:
        """Prompt tokens of all sequences that are not computed yet; O(sequences)."""
        waiting = (s for _, _, s in self._waiting if s.state is State.WAITING)
        return sum(max(s.prompt_tokens - s.computed, 0) for s in (*self.running, *waiting))

    def submit(self, sequence: EngineSequence) -> None:
        """Put a new sequence into the queue. ValueError if the whole cache could not hold it."""
        if self._blocks_for(sequence.prompt_tokens + sequence.output_tokens) > self.pool.size:
            raise ValueError("the KV cache is smaller than this one request")
        sequence.order = self._submitted
        self._submitted += 1
        self._enqueue(sequence)

    def abort(self, sequence: EngineSequence) -> bool:
        """Take a sequence out, wherever it is, and free its blocks; False if it never came in or has ended."""
        if sequence.state in (State.NEW, State.ENDED):
            return False
        if sequence.state is State.RUNNING:
            self.running.remove(sequence)
            self._release(sequence)
        else:
            self._waiting_count -= 1
        sequence.state = State.ENDED
        self.counters.aborted += 1
        return True

    def schedule(self, now_s: float) -> EngineStep:
        """Choose the sequences of the next step and give them their blocks. An empty step: nothing to do."""
        step = EngineStep([], StepShape())
        budget = self.max_num_batched_tokens
        preempted = False
        at = 0
        while at < len(self.running) and budget > 0:
            sequence = self.running[at]
            count = min(self._most(sequence.prompt_tokens + sequence.generated - sequence.computed), budget)
            missing = self._blocks_for(sequence.computed + count) - len(sequence.blocks)
            while missing > self.pool.free:
                victim = self._victim()
                preempted = True
                returned = self._preempt(victim, step)
                budget += returned
                at -= returned > 0
                if victim is sequence:
                    break
            if sequence.state is not State.RUNNING:
                continue
            if missing > 0:
                sequence.blocks += self.pool.allocate(missing)
            step.parts.append((sequence, count))
            budget -= count
            at += 1
        if not preempted:
            self._admit(step, budget, now_s)
        for sequence, count in step.parts:
            _add_to_shape(step.shape, sequence, count)
        return step

    def complete(self, step: EngineStep, now_s: float) -> StepOutcome:
        """Record the work of a step that ended at `now_s`; sequences aborted meanwhile are skipped."""
        outcome = StepOutcome([], [])
        for sequence, count in step.parts:
            if sequence.state is not State.RUNNING:
                continue
            before = sequence.computed // self.block_size
            sequence.computed += count
            after = sequence.computed // self.block_size
            if after > before and sequence.chain:
                for index in range(before, min(after, len(sequence.chain))):
                    self.pool.remember(sequence.blocks[index], sequence.chain[index])
            if sequence.computed < sequence.prompt_tokens + sequence.generated:
                continue
            sequence.generated += 1
            outcome.emitted.append(sequence)
            if sequence.generated == sequence.output_tokens:
                self._release(sequence)
                sequence.state = State.ENDED
                outcome.ended.append(sequence)
        if outcome.ended:
            self.running = [s for s in self.running if s.state is State.RUNNING]
        return outcome

    def _admit(self, step: EngineStep, budget: int, now_s: float) -> None:
        while budget > 0 and len(self.running) < self.max_num_seqs:
            while self._waiting and self._waiting[0][2].state is State.ENDED:
                heapq.heappop(self._waiting)
            if not self._waiting:
                return
            sequence = self._waiting[0][2]
            total = sequence.prompt_tokens + sequence.generated
            hits, unused = self.pool.find(sequence.chain, (total - 1) // self.block_size)
            if self._blocks_for(total) - len(hits) + unused > self.pool.free:
                return
            cached = self._cached(sequence, len(hits), total)
            if not self.chunked_prefill and self._most(total - cached) > budget:
                return
            heapq.heappop(self._waiting)
            self._waiting_count -= 1
            count = min(self._most(total - cached), budget)
            self.pool.share(hits)
            sequence.blocks = hits + self.pool.allocate(self._blocks_for(cached + count) - len(hits))
            sequence.computed = cached
            sequence.state = State.RUNNING
            if sequence.scheduled_s is None:
                sequence.scheduled_s = now_s
                sequence.cached_tokens = cached
                self.counters.prefix_queries += total
                self.counters.prefix_hits += cached
            self.running.append(sequence)
            step.parts.append((sequence, count))
            budget -= count

    def _cached(self, sequence: EngineSequence, hits: int, total: int) -> int:
        """Tokens that needn't be computed. Those given take blocks as any: nothing says who else reads them."""
        if sequence.chain:
            return hits * self.block_size
        return min(sequence.given_cached, total - 1) // self.block_size * self.block_size

    def _most(self, missing: int) -> int:
        """Of `missing` tokens, how many one step may compute."""
        threshold = self.long_prefill_token_threshold
        return threshold if 0 < threshold < missing else missing

    def _victim(self) -> EngineSequence:
        if self.by_priority:
            return max(self.running, key=lambda s: (s.priority, s.order))
        return self.running[-1]

    def _preempt(self, victim: EngineSequence, step: EngineStep) -> int:
        """Send a running sequence back to the queue; returns the tokens it had been given in this step."""
        self.running.remove(victim)
        self._release(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.counters.preemptions += 1
        self._enqueue(victim)
        for index, (sequence, count) in enumerate(step.parts):
            if sequence is victim:
                del step.parts[index]
                return count
        return 0

    def _enqueue(self, sequence: EngineSequence) -> None:
        sequence.state = State.WAITING
        self._waiting_count += 1
        key = sequence.priority if self.by_priority else 0
        heapq.heappush(self._waiting, (key, sequence.order, sequence))

    def _release(self, sequence: EngineSequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)


def decoding_shape(sequences: list[EngineSequence]) -> StepShape:
    """What a step has to do in which each of the sequences decodes one token."""
    shape = StepShape()
    for sequence in sequences:
        _add_to_shape(shape, sequence, 1)
    return shape


def _growing() -> tuple[str, ...]:
    """The figures of a decoding sequence's step that grow by one from step to step, as its context does."""
    one, next_one = (
        decoding_shape([EngineSequence("", 8, 9, 0.0, computed=8 + at, generated=1 + at)]) for at in (0, 1)
    )
    return tuple(f.name for f in fields(StepShape) if getattr(next_one, f.name) != getattr(one, f.name))


def _add_to_shape(shape: StepShape, sequence: EngineSequence, count: int) -> None:
    context = sequence.computed
    if context + count == sequence.prompt_tokens + sequence.generated:
        shape.sampled += 1
    shape.sequences += 1
    if sequence.generated and count == 1:
        shape.decode_sequences += 1
        shape.decode_kv_tokens += context + 1
    else:
        shape.prefill_tokens += count
    shape.attention_pairs += count * context + count * (count + 1) // 2
    shape.kv_tokens += context + count


GROWING: Final = _growing()
