"""The compiled engine against the scheduler in Python: the same bits, whatever comes."""

from dataclasses import fields, replace
from math import inf

import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from tailgate.harness.engine.config import Settings, resolve
from tailgate.harness.engine.model.kv_cache import BlockPool
from tailgate.harness.engine.model.scheduler import EngineSequence, EngineStep, Scheduler, State
from tailgate.harness.engine.model.step_law import CostCurve, RooflineTerm, StepLaw
from tailgate.harness.engine.virtual import kernel
from tailgate.harness.engine.virtual.kernel import EngineLimits, RequestArrays, serve, why_not
from tailgate.harness.engine.virtual.outcome import Ending, ServedRequests, ServerSeries
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import open_columns

compiled = pytest.mark.skipif(not kernel.AVAILABLE, reason="the kernel isn't compiled")
H100 = resolve(Settings("h100-sxm/llama-3.1-8b"))
SIMPLE = StepLaw(0.25)  # s a step, so that many things happen at the same time
TABLES = StepLaw(
    0.001,
    (
        RooflineTerm(CostCurve(tokens=1.0, knots=((1, 0.003), (8, 0.0041), (9, 0.02), (40, 0.07)))),
        RooflineTerm(
            CostCurve(attention_pairs=1.0, decode_kv_tokens=-1.0, knots=((0, 0.0), (100, 0.011), (300, 0.05))),
            CostCurve(constant=0.002, kv_tokens=1.3e-5, sampled=1e-4),
        ),
        RooflineTerm(CostCurve(sequences=0.0007, decode_sequences=1e-5)),
    ),
)


def reference(
    requests: RequestArrays,
    limits: EngineLimits,
    law: StepLaw,
    *,
    horizon_s: float = inf,
    factors: np.ndarray | None = None,
    interval_s: float | None = None,
    tokens: bool = False,
) -> ServedRequests:
    """As `serve`, step by step with the real scheduler."""
    n = len(requests.arrival_s)
    pool = BlockPool(limits.blocks)
    engine = Scheduler(
        pool,
        block_size=limits.block_size,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
    )
    cached = np.zeros(n, int) if requests.cached_tokens is None else requests.cached_tokens
    patience = np.full(n, inf) if requests.patience_s is None else requests.patience_s
    previous = np.full(n, -1) if requests.previous is None else requests.previous
    think = np.zeros(n) if requests.think_s is None else requests.think_s
    made = [
        EngineSequence(str(i), int(p), int(o), 0.0, given_cached=int(c))
        for i, (p, o, c) in enumerate(zip(requests.prompt_tokens, requests.output_tokens, cached, strict=True))
    ]
    coming = [(float(at), i) for i, at in enumerate(requests.arrival_s) if previous[i] < 0]
    leaving: list[tuple[float, int]] = []
    arrival, end, times = [np.nan] * n, [np.nan] * n, [[] for _ in made]
    for at, i in coming:
        arrival[i] = at
    ending = [int(Ending.UNSERVED)] * n
    step: EngineStep | None = None
    step_end, now, number = inf, 0.0, 0
    rows: list[tuple[int, ...]] = []
    totals = {"prompt": 0, "generation": 0}

    def sample(until: float, *, also_at: bool = False) -> None:
        while interval_s and ((t := interval_s * (len(rows) + 1)) < until or (also_at and t == until)):
            used = pool.size - pool.free
            running, waiting = len(engine.running), engine.waiting_count
            rows.append((running, waiting, used, totals["prompt"], totals["generation"], engine.counters.preemptions))

    def close(i: int, how: Ending) -> None:
        ending[i], end[i] = int(how), now
        coming.extend((now + float(think[k]), k) for k in range(n) if previous[k] == i)

    while True:
        leaving = [each for each in leaving if made[each[1]].state is not State.ENDED]
        coming.sort()
        upcoming = min([step_end, *(t for t, _ in leaving), *(t for t, _ in coming[:1])])
        if upcoming == inf or upcoming > horizon_s:
            sample(now if horizon_s == inf else horizon_s, also_at=True)
            end = [horizon_s if each.state in (State.WAITING, State.RUNNING) else end[i] for i, each in enumerate(made)]
            break
        sample(upcoming)
        now = upcoming
        if step is not None and step_end == now:
            outcome = engine.complete(step, now)
            step, step_end = None, inf
            for sequence in outcome.emitted:
                i = int(sequence.request_id)
                totals["generation"] += 1
                totals["prompt"] += 0 if times[i] else sequence.prompt_tokens
                times[i].append(now)
            for sequence in outcome.ended:
                close(int(sequence.request_id), Ending.COMPLETE)
        while any(at <= now for at, _ in [*leaving, *coming]):
            late = [(at, i) for at, i in sorted(leaving) if at <= now]
            leaving = [each for each in leaving if each not in late]
            for _, i in late:
                if engine.abort(made[i]):
                    close(i, Ending.ABANDONED)
            while coming and min(coming)[0] <= now:
                at, i = min(coming)
                coming.remove((at, i))
                arrival[i] = at
                length = made[i].prompt_tokens + made[i].output_tokens
                full = limits.max_num_queued_reqs
                if length > (limits.max_model_len or inf) or -(-length // limits.block_size) > limits.blocks:
                    close(i, Ending.TOO_LONG)
                elif full is not None and len(engine.running) + engine.waiting_count >= full:
                    close(i, Ending.REJECTED)
                else:
                    engine.submit(made[i])
                    leaving.append((at + float(patience[i]), i))
        sample(now, also_at=True)
        if step is None:
            chosen = engine.schedule(now)
            if chosen.parts:
                seconds = law.seconds(chosen.shape)
                step = chosen
                step_end = now + seconds * (1.0 if factors is None else float(factors[number % len(factors)]))
                number += 1
    table = np.array(rows, np.int64).reshape(-1, 6)
    series = ServerSeries((interval_s or 0.0) * np.arange(1, len(rows) + 1), *table.T)
    return ServedRequests(
        np.array(arrival),
        np.array([np.nan if s.scheduled_s is None else s.scheduled_s for s in made]),
        np.array([each[0] if each else np.nan for each in times]),
        np.array(end),
        np.array([s.generated for s in made], np.int64),
        np.array([s.cached_tokens for s in made], np.int64),
        np.array([s.preemptions for s in made], np.int64),
        np.array(ending, np.int64),
        series,
        np.array([t for each in times for t in each], float) if tokens else None,
        np.cumsum([0, *(len(each) for each in times)]) if tokens else None,
    )


def differing(one: object, other: object) -> list[str]:
    """Names of fields that differ in any bit."""
    names = []
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if field.name == "series":
            names += [f"series.{name}" for name in differing(left, right)]
        elif (left is None) != (right is None) or (left is not None and not same_bits(left, right)):
            names.append(field.name)
    return names


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


World = tuple[RequestArrays, EngineLimits, StepLaw, dict[str, object]]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A little engine, often with too few blocks, and what comes to it, at any times or all at those of steps."""
    n, rng = draw(st.integers(0, 25)), np.random.default_rng(draw(st.integers(0, 2**32)))
    law = draw(st.sampled_from([SIMPLE, TABLES, H100.step_time.law]))
    step, on_grid = law.constant_s, draw(st.booleans())

    def times(most: int) -> np.ndarray:
        return step * (rng.integers(0, most + 1, n) if on_grid else rng.uniform(0, most, n))

    def lengths(most: int) -> np.ndarray:
        return rng.integers(1, most + 1, n)

    prompt, output = lengths(draw(st.sampled_from([1, 5, 40]))), lengths(draw(st.sampled_from([1, 5, 60])))
    previous = np.array([rng.integers(-1, i) if i % 2 else -1 for i in range(n)], np.int64)
    sessions = draw(st.booleans())
    requests = RequestArrays(
        np.sort(times(draw(st.sampled_from([0, 20, 200])))),
        prompt,
        output,
        draw(st.sampled_from([None, lengths(30)])),
        draw(st.sampled_from([None, times(100), np.where(rng.random(n) < 0.5, inf, times(100))])),
        previous if sessions else None,
        times(9) if sessions else None,
    )
    block_size, longest = draw(st.sampled_from([1, 2, 4, 16])), int((prompt + output).max(initial=1))
    blocks = -(-longest // block_size)
    limits = EngineLimits(
        block_size,
        max(1, blocks + draw(st.integers(-blocks // 4, 2 * blocks))),
        draw(st.integers(1, 8)),
        draw(st.integers(1, 40)),
        draw(st.sampled_from([None, None, 0, 2, 6])),
        draw(st.sampled_from([None, None, longest - 1])) or None,
    )
    more: dict[str, object] = {
        "horizon_s": draw(st.sampled_from([inf, inf, 40 * step, 100.3 * step])),
        "factors": draw(st.sampled_from([None, np.array([0.9, 1.3, 1.0]), np.array([1.1])])),
        "interval_s": draw(st.sampled_from([None, step, 3.7 * step])),
        "tokens": draw(st.booleans()),
    }
    return requests, limits, law, more


# Two who share a cache of seven blocks: the second is preempted while the first goes on, gives up, and a third follows.
PREEMPTED = (
    RequestArrays(
        np.array([0.0, 0.25, 0.25]),
        np.array([9, 6, 5]),
        np.array([15, 14, 3]),
        np.array([4, 0, 4]),
        np.array([inf, 4.0, inf]),
    ),
    EngineLimits(4, 7, 4, 10),
    SIMPLE,
    {"interval_s": 0.25, "tokens": True},
)


@compiled
@settings(max_examples=400, deadline=None)
@example(PREEMPTED)
@given(worlds())
def test_the_kernel_and_the_scheduler_agree_to_the_bit(world: World):
    requests, limits, law, more = world
    found, expected = serve(requests, limits, law, **more), reference(requests, limits, law, **more)
    event(f"preempted: {bool(expected.preemptions.any())}")
    for ending in set(expected.ending.tolist()):
        event(f"ending: {Ending(ending).name}")
    assert differing(found, expected) == []


def poisson(rate: float, seconds: float, prompt: int = 500, output: int = 200) -> RequestArrays:
    rng = np.random.default_rng(1)
    at = np.cumsum(rng.exponential(1 / rate, int(rate * seconds)))
    return RequestArrays(at, np.full(len(at), prompt), np.full(len(at), output))


@compiled
@pytest.mark.parametrize("blocks", [None, 400])
def test_they_agree_on_an_engine_of_usual_size_with_jitter(blocks: int | None):
    limits = EngineLimits.of(
        resolve(Settings("h100-sxm/llama-3.1-8b", num_gpu_blocks_override=blocks, max_model_len=2000))
    )
    factors = np.random.default_rng(2).lognormal(0.0, 0.05, 997)
    more = {"factors": factors, "interval_s": 1.0, "tokens": True}
    requests = poisson(10.0, 12.0)
    found = serve(requests, limits, H100.step_time.law, **more)
    assert differing(found, reference(requests, limits, H100.step_time.law, **more)) == []
    assert found.complete.all() and bool(found.preemptions.any()) == (blocks is not None)


@compiled
def test_a_lone_request_takes_its_prefill_and_a_step_for_each_further_token():
    found = serve(RequestArrays(np.array([1.0]), np.array([25]), np.array([4])), EngineLimits(4, 100, 8, 10), SIMPLE)
    assert (found.scheduled_s[0], found.first_token_s[0], found.end_s[0]) == (1.0, 1.75, 2.5)  # chunks of 10, 10, 5


@compiled
def test_at_equal_times_tokens_come_first_then_who_gives_up_then_who_comes():
    limits = EngineLimits(4, 100, 1, 10)  # one seat
    requests = RequestArrays(
        np.array([0.0, 0.0, 0.5]), np.array([5, 5, 5]), np.array([2, 2, 2]), patience_s=np.array([0.5, 0.5, inf])
    )
    found = serve(requests, limits, SIMPLE)
    # The first has its last token just in time, the second never had the seat, the third gets it at once.
    assert found.ending.tolist() == [Ending.COMPLETE, Ending.ABANDONED, Ending.COMPLETE]
    assert found.end_s.tolist() == [0.5, 0.5, 1.0]
    assert found.scheduled_s[2] == 0.5 and np.isnan(found.scheduled_s[1])


@compiled
def test_who_gives_up_during_a_step_gets_no_token_of_it_and_leaves_at_once():
    requests = RequestArrays(np.array([0.0, 0.2]), np.array([5, 5]), np.array([9, 9]), patience_s=np.array([0.6, inf]))
    found = serve(requests, EngineLimits(4, 100, 8, 10, max_num_queued_reqs=1), SIMPLE, interval_s=0.125, horizon_s=2.0)
    assert (found.generated[0], found.end_s[0]) == (2, 0.6)
    assert found.ending.tolist() == [Ending.ABANDONED, Ending.REJECTED]
    assert found.series.t_s[4] == 0.625 and found.series.blocks_used[4] == 0


@compiled
def test_a_turn_follows_however_the_one_before_it_ended():
    requests = RequestArrays(
        np.array([0.0, np.nan, np.nan]),
        np.array([500, 5, 5]),
        np.array([1, 1, 1]),
        previous=np.array([-1, 0, 1]),
        think_s=np.array([0.0, 2.0, 3.0]),
    )
    found = serve(requests, EngineLimits(4, 100, 8, 10), SIMPLE)
    assert found.ending.tolist() == [Ending.TOO_LONG, Ending.COMPLETE, Ending.COMPLETE]
    assert found.arrival_s.tolist() == [0.0, 2.0, 5.25]


@compiled
def test_turns_of_a_plan_follow_the_turns_before_them():
    columns = open_columns(WorkloadSpec.model_validate({"profile": "chat", "duration": "2m"}), 3)
    requests = RequestArrays.of(columns)
    found = serve(requests, EngineLimits.of(H100), H100.step_time.law)
    assert found.complete.all()
    later = np.flatnonzero(columns.turn > 0)
    assert len(later) > 30 and requests.previous is not None
    assert (columns.session[requests.previous[later]] == columns.session[later]).all()
    assert (columns.turn[requests.previous[later]] == columns.turn[later] - 1).all()
    ends = found.end_s[requests.previous[later]]
    assert (found.arrival_s[later] == ends + columns.think_ns[later] / 1e9).all()


@compiled
def test_requests_and_tokens_are_accounted_for_beyond_saturation():
    requests = poisson(50.0, 600.0)
    found = serve(requests, EngineLimits.of(H100), H100.step_time.law, interval_s=1.0, horizon_s=600.0, tokens=True)
    assert found.token_s is not None and found.token_at is not None
    assert len(found.token_s) == found.generated.sum() == found.series.generation_tokens[-1]
    assert (np.diff(found.token_s) > 0).sum() >= len(found.token_s) - len(requests.arrival_s)
    begun = found.generated > 0
    assert (found.token_s[found.token_at[:-1][begun]] == found.first_token_s[begun]).all()
    unserved = int((found.ending == Ending.UNSERVED).sum())
    come = int((requests.arrival_s <= 600.0).sum())
    assert int(found.complete.sum()) + found.series.running[-1] + found.series.waiting[-1] == come
    assert int(found.complete.sum()) + unserved == len(requests.arrival_s)


@compiled
def test_after_ten_thousand_requests_of_every_kind_nothing_is_left_in_the_engine():
    rng, n = np.random.default_rng(4), 10_000
    requests = RequestArrays(
        np.sort(rng.uniform(0, 400.0, n)),
        rng.integers(1, 700, n),
        rng.integers(1, 400, n),
        rng.integers(0, 300, n),
        np.where(rng.random(n) < 0.7, inf, rng.exponential(20.0, n)),
        np.where(rng.random(n) < 0.3, rng.integers(-1, np.arange(n)), -1),
        rng.exponential(5.0, n),
    )
    limits = EngineLimits(16, 600, 64, 512, max_num_queued_reqs=300, max_model_len=1000)
    found = serve(requests, limits, H100.step_time.law, interval_s=1.0, horizon_s=1e5, tokens=True)
    endings = np.bincount(found.ending, minlength=len(Ending))
    kinds = [Ending.COMPLETE, Ending.ABANDONED, Ending.REJECTED, Ending.TOO_LONG]
    assert endings[kinds].min() > 50 and endings.sum() == endings[kinds].sum() == n
    assert found.preemptions.sum() == found.series.preemptions[-1] > 100
    assert (found.series.running[-1], found.series.waiting[-1], found.series.blocks_used[-1]) == (0, 0, 0)
    assert found.series.blocks_used.max() <= limits.blocks and found.series.running.max() <= limits.max_num_seqs
    assert (found.generated[found.complete] == requests.output_tokens[found.complete]).all()
    assert found.token_s is not None and len(found.token_s) == found.generated.sum()
    begun = ~np.isnan(found.first_token_s)
    assert found.series.prompt_tokens[-1] == requests.prompt_tokens[begun].sum()
    assert (found.cached_tokens < requests.prompt_tokens + requests.output_tokens).all()


@compiled
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arrival_s": np.array([1.0, 0.0])}, "arrival_s ascends"),
        ({"arrival_s": np.array([0.0, np.nan])}, "arrival_s ascends"),
        ({"prompt_tokens": np.array([0, 1])}, "lengths"),
        ({"prompt_tokens": np.array([2**24, 1])}, "lengths"),
        ({"output_tokens": np.array([1])}, "one length"),
        ({"cached_tokens": np.array([-1, 0])}, "cached_tokens"),
        ({"patience_s": np.array([np.nan, 0.0])}, "patience_s"),
        ({"previous": np.array([-1, 1])}, "stands before it"),
        ({"previous": np.array([-1, 0]), "think_s": np.array([0.0, -1.0])}, "think_s"),
    ],
)
def test_arrays_that_are_no_requests_are_refused(change: dict[str, np.ndarray], words: str):
    usual = RequestArrays(np.array([0.0, 1.0]), np.array([1, 1]), np.array([1, 1]))
    with pytest.raises(ValueError, match=words):
        serve(replace(usual, **change), EngineLimits(4, 10, 1, 1), SIMPLE)


@compiled
@pytest.mark.parametrize(
    ("limits", "more", "words"),
    [
        (EngineLimits(0, 10, 1, 1), {}, "block_size"),
        (EngineLimits(4, 10, 1, 1, max_num_queued_reqs=-1), {}, "max_num_queued_reqs"),
        (EngineLimits(4, 10, 1, 1), {"factors": np.array([])}, "factors"),
        (EngineLimits(4, 10, 1, 1), {"factors": np.array([1.0, -1.0])}, "factors"),
        (EngineLimits(4, 10, 1, 1), {"interval_s": 0.0}, "interval"),
        (EngineLimits(4, 10, 1, 1), {"horizon_s": np.nan}, "horizon"),
    ],
)
def test_settings_that_are_none_are_refused(limits: EngineLimits, more: dict[str, object], words: str):
    usual = RequestArrays(np.array([0.0]), np.array([1]), np.array([1]))
    with pytest.raises(ValueError, match=words):
        serve(usual, limits, SIMPLE, **more)


def test_a_deployment_is_the_kernels_only_while_it_knows_each_of_its_settings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "AVAILABLE", True)
    usual = Settings("h100-sxm/llama-3.1-8b")
    assert why_not(usual) is None
    assert why_not(replace(usual, jitter=0.1, max_num_seqs=8, kv_cache_dtype="fp8")) is None
    assert "scheduling_policy = priority" in str(why_not(replace(usual, scheduling_policy="priority")))
    assert "prefix cache" in str(why_not(usual, prefix_blocks=True))
    assert why_not(replace(usual, enable_prefix_caching=False), prefix_blocks=True) is None


def test_without_the_extension_the_reason_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "AVAILABLE", False)
    monkeypatch.delenv("TAILGATE_PURE_PYTHON", raising=False)
    assert "no C compiler" in str(why_not(Settings("h100-sxm/llama-3.1-8b")))
    monkeypatch.setenv("TAILGATE_PURE_PYTHON", "1")
    assert "TAILGATE_PURE_PYTHON" in str(why_not(Settings("h100-sxm/llama-3.1-8b")))
