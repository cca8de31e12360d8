"""Laws of the scheduler, on a virtual clock: whatever comes in, these hold."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tailgate.harness.engine.model.kv_cache import BlockPool, block_hashes
from tailgate.harness.engine.model.scheduler import EngineSequence, EngineStep, Scheduler, State

BLOCK = 4


def sequence(name: str, prompt: int, output: int, arrival_s: float = 0.0, **more: object) -> EngineSequence:
    return EngineSequence(name, prompt, output, arrival_s, **more)  # type: ignore[arg-type]


def scheduler(blocks: int = 100, seqs: int = 8, budget: int = 32, **more: int) -> Scheduler:
    return Scheduler(
        BlockPool(blocks),
        block_size=BLOCK,
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        **more,  # type: ignore[arg-type]
    )


@dataclass
class Trace:
    """What a whole simulation did."""

    computed: dict[str, int] = field(default_factory=dict)
    emitted: dict[str, int] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    steps: list[EngineStep] = field(default_factory=list)


def simulate(engine: Scheduler, arrivals: list[tuple[int, EngineSequence]], limit: int = 20_000) -> Trace:
    """Run until everything has ended; `arrivals` are (step number, sequence)."""
    trace = Trace()
    pending = sorted(arrivals, key=lambda a: a[0])
    for number in range(limit):
        while pending and pending[0][0] <= number:
            engine.submit(pending.pop(0)[1])
        step = engine.schedule(float(number))
        check(engine, step)
        if not step.parts and not pending:
            assert not engine.running and engine.waiting_count == 0
            return trace
        for part, count in step.parts:
            trace.computed[part.request_id] = trace.computed.get(part.request_id, 0) + count
        outcome = engine.complete(step, float(number + 1))
        for one in outcome.emitted:
            trace.emitted[one.request_id] = trace.emitted.get(one.request_id, 0) + 1
        trace.ended += [one.request_id for one in outcome.ended]
        trace.steps.append(step)
    raise AssertionError("never ended")


def check(engine: Scheduler, step: EngineStep) -> None:
    """What must hold in every step."""
    assert sum(count for _, count in step.parts) <= engine.max_num_batched_tokens
    assert step.shape.tokens == sum(count for _, count in step.parts)
    assert len(engine.running) <= engine.max_num_seqs
    assert all(count > 0 for _, count in step.parts)
    used = {block for one in engine.running for block in one.blocks}
    assert len(used) == engine.pool.size - engine.pool.free
    for one, count in step.parts:
        assert one.state is State.RUNNING
        assert len(one.blocks) == -(-(one.computed + count) // BLOCK)


requests = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 60), st.integers(1, 30), st.integers(0, 3)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(requests, st.integers(23, 60), st.integers(1, 6), st.integers(1, 40), st.booleans())
def test_every_request_gets_exactly_its_tokens_whatever_is_preempted(
    asked: list[tuple[int, int, int, int]], blocks: int, seqs: int, budget: int, by_priority: bool
):
    engine = scheduler(blocks, seqs, budget, by_priority=by_priority)
    arrivals = [
        (at, sequence(str(n), prompt, output, float(at), priority=priority))
        for n, (at, prompt, output, priority) in enumerate(asked)
    ]
    trace = simulate(engine, arrivals)
    for _, one in arrivals:
        assert trace.emitted[one.request_id] == one.output_tokens == one.generated
        once = one.prompt_tokens + one.output_tokens - 1  # the last token is never run through the model
        if one.preemptions:
            assert trace.computed[one.request_id] > once
        else:
            assert trace.computed[one.request_id] == once
    assert engine.pool.free == engine.pool.size
    assert engine.counters.preemptions == sum(one.preemptions for _, one in arrivals)


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(1, 6), st.integers(1, 40))
def test_first_come_first_served(asked: list[tuple[int, int, int, int]], seqs: int, budget: int):
    engine = scheduler(1000, seqs, budget)
    arrivals = [(at, sequence(str(n), p, o, float(at))) for n, (at, p, o, _) in enumerate(asked)]
    simulate(engine, arrivals)
    by_arrival = sorted((one for _, one in arrivals), key=lambda one: one.order)
    starts = [one.scheduled_s for one in by_arrival]
    assert starts == sorted(starts, key=lambda s: s or 0.0)


def test_a_long_prompt_is_prefilled_in_chunks_beside_the_decodes():
    engine = scheduler(budget=16)
    short, long = sequence("short", 4, 10), sequence("long", 40, 2)
    trace = simulate(engine, [(0, short), (1, long)])
    chunks = [count for step in trace.steps for one, count in step.parts if one is long]
    assert chunks == [15, 15, 10, 1]  # one token of each step's 16 is the decode's
    first_decode = trace.steps[1]
    assert (first_decode.shape.prefill_tokens, first_decode.shape.decode_sequences) == (15, 1)
    assert first_decode.shape.sampled == 1  # a chunk that doesn't end the prompt samples nothing


def test_a_threshold_leaves_room_in_the_step_for_others():
    engine = scheduler(budget=32, long_prefill_token_threshold=10)
    trace = simulate(engine, [(0, sequence("long", 45, 2)), (0, sequence("short", 8, 2))])
    parts = [[(part.request_id, count) for part, count in step.parts] for step in trace.steps]
    assert parts[:2] == [[("long", 10), ("short", 8)], [("long", 10), ("short", 1)]]
    assert trace.ended == ["short", "long"]


def test_without_chunks_a_prompt_waits_for_a_step_that_holds_all_of_it():
    engine = scheduler(budget=32, chunked_prefill=False)
    trace = simulate(
        engine, [(0, sequence("first", 20, 3)), (0, sequence("whole", 32, 1)), (0, sequence("last", 4, 1))]
    )
    parts = [[(part.request_id, count) for part, count in step.parts] for step in trace.steps]
    assert parts == [[("first", 20)], [("first", 1)], [("first", 1)], [("whole", 32)], [("last", 4)]]


def test_the_shape_of_a_step_counts_pairs_and_cache_reads():
    engine = scheduler(budget=8)
    engine.submit(sequence("a", 10, 3))
    first = engine.schedule(0.0)
    assert (first.shape.attention_pairs, first.shape.kv_tokens) == (8 * 9 // 2, 8)
    engine.complete(first, 1.0)
    second = engine.schedule(1.0)
    assert (second.shape.attention_pairs, second.shape.kv_tokens, second.shape.sampled) == (9 + 10, 10, 1)
    engine.complete(second, 2.0)
    third = engine.schedule(2.0)
    assert (third.shape.decode_sequences, third.shape.attention_pairs, third.shape.kv_tokens) == (1, 11, 11)


def test_the_youngest_is_preempted_when_the_cache_is_full_and_comes_back_before_newcomers():
    engine = scheduler(blocks=6)
    old, young = sequence("old", 8, 14), sequence("young", 8, 8)
    late = sequence("late", 4, 1)
    trace = simulate(engine, [(0, old), (0, young), (3, late)])
    assert (old.preemptions, young.preemptions) == (0, 1)
    assert trace.ended.index("young") > trace.ended.index("old")
    assert late.scheduled_s is not None and late.scheduled_s >= 14  # waited behind `young`


def test_by_priority_the_least_important_is_preempted_and_the_most_important_goes_first():
    engine = scheduler(blocks=8, seqs=2, by_priority=True)
    batch = sequence("batch", 8, 20, priority=10)
    chat = sequence("chat", 8, 20, priority=0)
    later = sequence("later", 8, 4, priority=5)
    simulate(engine, [(0, batch), (0, later), (1, chat)])
    assert chat.preemptions == 0 and batch.preemptions + later.preemptions > 0
    assert batch.scheduled_s is not None and later.scheduled_s is not None
    assert later.scheduled_s <= batch.scheduled_s


def test_an_aborted_request_frees_its_place_wherever_it_was():
    engine = scheduler(seqs=1)
    running, waiting, last = sequence("r", 8, 100), sequence("w", 8, 2), sequence("l", 8, 2)
    for one in (running, waiting, last):
        engine.submit(one)
    step = engine.schedule(0.0)
    assert [one for one, _ in step.parts] == [running]
    assert engine.abort(running) and engine.abort(waiting)
    assert not engine.abort(running)
    assert engine.complete(step, 1.0).emitted == []
    assert [one for one, _ in engine.schedule(1.0).parts] == [last]
    assert engine.counters.aborted == 2 and engine.waiting_count == 0


def ids(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


def test_a_shared_prefix_is_computed_once_but_never_the_whole_prompt():
    engine = scheduler()
    chain = block_hashes(ids(*range(8)), BLOCK)
    first = sequence("first", 8, 1, chain=chain)
    simulate(engine, [(0, first)])
    again = sequence("again", 8, 1, chain=chain)
    trace = simulate(engine, [(0, again)])
    assert again.cached_tokens == 4  # the second block would leave nothing to compute
    assert trace.computed == {"again": 4}
    assert (engine.counters.prefix_queries, engine.counters.prefix_hits) == (16, 4)


def test_two_running_requests_share_the_blocks_of_their_prefix():
    engine = scheduler()
    chain = block_hashes(ids(*range(16)), BLOCK)
    one, two = sequence("one", 17, 9, chain=chain), sequence("two", 17, 9, chain=chain)
    engine.submit(one)
    engine.complete(engine.schedule(0.0), 1.0)
    engine.submit(two)
    engine.schedule(1.0)
    assert one.blocks[:4] == two.blocks[:4] and one.blocks[4] != two.blocks[4]
    assert engine.pool.size - engine.pool.free == 6


def test_hashes_depend_on_salt_and_on_all_that_came_before():
    tokens = ids(*range(12))
    assert block_hashes(tokens, BLOCK, "a") != block_hashes(tokens, BLOCK, "b")
    changed = block_hashes(ids(99, *range(1, 12)), BLOCK)
    assert not set(changed) & set(block_hashes(tokens, BLOCK))
    assert block_hashes(tokens[:-4], BLOCK) == block_hashes(tokens, BLOCK)[:2]


def test_evicted_prefixes_are_gone_oldest_first_and_a_reset_forgets_the_rest():
    engine = scheduler(blocks=4)
    old, new = block_hashes(ids(*range(8)), BLOCK), block_hashes(ids(*range(100, 108)), BLOCK)
    simulate(engine, [(0, sequence("old", 8, 1, chain=old))])
    simulate(engine, [(0, sequence("new", 8, 1, chain=new))])
    simulate(engine, [(0, sequence("third", 4, 1))])  # takes one block: the tail of `old`
    assert len(engine.pool.find(old, 2)[0]) == 1 and len(engine.pool.find(new, 2)[0]) == 2
    assert engine.pool.forget()
    assert engine.pool.find(new, 2) == ([], 0)


def test_a_reset_is_refused_while_blocks_are_in_use():
    engine = scheduler()
    engine.submit(sequence("a", 8, 5))
    engine.schedule(0.0)
    assert not engine.pool.forget()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 60), st.integers(1, 30), st.integers(-1, 40), st.booleans()),
        min_size=1,
        max_size=20,
    ),
    st.integers(23, 60),
    st.integers(1, 5),
)
def test_whenever_requests_are_aborted_none_is_lost_and_every_block_comes_back(
    asked: list[tuple[int, int, int, int, bool]], blocks: int, seqs: int
):
    """Aborts come before a request is submitted (-1), in the queue, between steps, and while a step computes it."""
    engine = scheduler(blocks, seqs)
    chain = block_hashes(ids(*range(90)), BLOCK)
    clients = [
        (arrives, arrives + gone if gone >= 0 else -1, in_step, sequence(str(n), prompt, output, chain=chain))
        for n, (arrives, prompt, output, gone, in_step) in enumerate(asked)
    ]
    submitted = ended = aborted = 0
    number = 0
    while number <= 12 or engine.running or engine.waiting_count:  # nobody comes after step 12
        for arrives, gone, _, one in clients:
            if arrives == number:
                assert gone >= 0 or not engine.abort(one)  # its client went while the head was written
                if gone >= 0:
                    engine.submit(one)
                    submitted += 1
        aborted += sum(engine.abort(one) for _, gone, in_step, one in clients if gone == number and not in_step)
        step = engine.schedule(float(number))
        check(engine, step)
        aborted += sum(engine.abort(one) for _, gone, in_step, one in clients if gone == number and in_step)
        ended += len(engine.complete(step, number + 1.0).ended)
        assert submitted == ended + aborted + len(engine.running) + engine.waiting_count
        number += 1
        assert number < 3000
    assert submitted == ended + aborted and aborted == engine.counters.aborted
    assert engine.waiting_count == 0 and not engine.running and engine.pool.free == engine.pool.size
    assert not any(engine.abort(one) for *_, one in clients)
