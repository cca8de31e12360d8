"""What a plan says is shared is shared, and no more: small plans with hits counted by hand, and laws."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import Plan, make_plan
from tailgate.workloads.prompts.content_table import table_default
from tailgate.workloads.prompts.corpus import corpus_text
from tailgate.workloads.prompts.prompts import PromptMaker
from tailgate.workloads.statistics.prefix_reuse import implied_reuse


def plan(seed: int = 1, **spec: Any) -> Plan:
    base = {"prompt_tokens": 1000, "output_tokens": 10, "arrivals": {"rate": "10/s"}, "duration": "30s"}
    return make_plan(WorkloadSpec.model_validate(base | spec), seed)


def table_of(*requests: tuple[int, list[int]]) -> pa.Table:
    return pa.table(
        {
            "prompt_tokens": pa.array([n for n, _ in requests], pa.int32()),
            "prefix_blocks": pa.array([ids for _, ids in requests], pa.list_(pa.uint64())),
        }
    )


@pytest.mark.parametrize(
    ("requests", "hits"),
    [
        ([(30, [1, 2, 3]), (30, [1, 2, 3])], [0, 30]),
        ([(30, [1, 2, 3]), (30, [1, 9, 3])], [0, 10]),
        ([(30, [1, 2, 3]), (30, [2, 1, 3])], [0, 0]),
        ([(25, [1, 2, 3]), (30, [1, 2, 3]), (28, [1, 2, 3])], [0, 25, 28]),
        ([(15, [1, 2]), (40, [1, 2, 3])], [0, 15]),
        ([(50, [1]), (50, [1])], [0, 10]),
        ([(50, []), (50, [])], [0, 0]),
    ],
)
def test_hits_are_the_longest_prefix_seen_before(requests: list[tuple[int, list[int]]], hits: list[int]) -> None:
    assert implied_reuse(table_of(*requests), 10).hit_tokens.tolist() == hits


def test_a_servers_blocks_round_hits_down_and_spare_the_last_token() -> None:
    found = implied_reuse(table_of((32, [1, 2, 3, 4]), (32, [1, 2, 3, 4]), (40, [1, 2, 3, 4])), 10, granularity=16)
    assert found.hit_tokens.tolist() == [0, 16, 32]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.lists(st.integers(0, 3), max_size=5)), min_size=1, max_size=12))
def test_hits_equal_those_of_a_cache_of_token_prefixes(requests: list[tuple[int, list[int]]]) -> None:
    # An independent model: prompts spelled out token by token, compared with all before.
    spelled = [
        [(block, k) for block in ids for k in range(10)][:n] + [("own", place, k) for k in range(n - 10 * len(ids))]
        for place, (n, ids) in enumerate(requests)
    ]
    expected = []
    for place, prompt in enumerate(spelled):
        best = 0
        for earlier in spelled[:place]:
            same = next(
                (k for k, (a, b) in enumerate(zip(prompt, earlier, strict=False)) if a != b),
                min(len(prompt), len(earlier)),
            )
            best = max(best, same)
        expected.append(best)
    assert implied_reuse(table_of(*requests), 10).hit_tokens.tolist() == expected


def test_a_system_prompt_is_shared_by_its_class_only() -> None:
    classes = {name: {"prefix": {"system_tokens": 640}} for name in ("a", "b")}
    made = plan(classes=classes)
    found = implied_reuse(made.table, made.block_tokens)
    assert sorted(np.unique(found.hit_tokens).tolist()) == [0, 640]
    assert (found.hit_tokens == 0).sum() == 2


def test_a_context_covers_its_share_of_the_prompt() -> None:
    made = plan(prefix={"shared": {"pool": 1, "share": 0.5}}, prompt_tokens=1280)
    assert set(implied_reuse(made.table, made.block_tokens).hit_tokens.tolist()) == {0, 640}


def test_popular_contexts_are_hit_more() -> None:
    shares = [
        implied_reuse(p.table, p.block_tokens).token_share
        for p in (plan(prefix={"shared": {"pool": 300, "popularity": s, "tokens": 640}}) for s in (0.0, 1.0, 3.0))
    ]
    assert shares[0] < shares[1] < shares[2]


def test_passages_are_shared_as_far_as_they_are_the_same_in_the_same_order() -> None:
    made = plan(prefix={"passages": {"pool": 2, "popularity": 0, "count": 2, "tokens": 64}})
    lists = {tuple(ids) for ids in made.table["prefix_blocks"].to_pylist()}
    assert len(lists) == 4 and len({block for ids in lists for block in ids}) == 2


def test_a_conversation_repeats_all_its_prompts_and_nobody_elses() -> None:
    made = plan(
        sessions={"turns": 4, "think": 1, "new_tokens": 100}, prompt_tokens=300, output_tokens=50, arrivals={"rate": 1}
    )
    found = implied_reuse(made.table, made.block_tokens).hit_tokens
    prompts, turns = made.table["prompt_tokens"].to_numpy(), made.table["turn"].to_numpy()
    assert (found[turns == 0] == 0).all()
    assert (found[turns > 0] == prompts[np.flatnonzero(turns > 0) - 1]).all()


def test_after_compaction_a_conversation_shares_only_its_system_prompt() -> None:
    made = plan(
        sessions={"turns": 6, "new_tokens": 190, "compact_at": 700}, prompt_tokens=300, output_tokens=10,
        prefix={"system_tokens": 128}, users=1, arrivals=None, requests=6, duration=None,
    )  # fmt: skip
    assert made.table["prompt_tokens"].to_pylist() == [300, 500, 700, 175, 375, 575]
    assert implied_reuse(made.table, made.block_tokens).hit_tokens.tolist() == [0, 300, 500, 128, 175, 375]


def test_a_conversation_clipped_to_the_context_repeats_what_it_keeps() -> None:
    spec = {
        "prompt_tokens": 500,
        "output_tokens": "uniform(50, 400)",
        "sessions": {"turns": 15, "new_tokens": "uniform(20, 200)"},
        "users": 2,
        "requests": 300,
    }
    made = plan(arrivals=None, duration=None, **spec, max_context=2048, over_context="clip")
    lengths, turn = made.table["prompt_tokens"].to_numpy(), made.table["turn"].to_numpy()
    later = np.flatnonzero(turn > 0)
    assert (lengths[later] < lengths[later - 1]).sum() > 50  # by the answers' lengths: no new beginnings
    hits = implied_reuse(made.table, made.block_tokens).hit_tokens
    assert (hits[later] >= np.minimum(lengths[later], lengths[later - 1])).all()


def test_the_prompts_that_are_made_share_what_the_plan_implies() -> None:
    made = plan(
        sessions={"turns": "uniform(1, 4)", "think": 1, "new_tokens": 90}, prompt_tokens="uniform(50, 700)",
        prefix={"system_tokens": 128, "shared": {"pool": 3, "tokens": "uniform(0, 300)"}}, arrivals={"rate": 1},
    )  # fmt: skip
    maker = PromptMaker(table_default(text=corpus_text(100_000)), block_tokens=made.block_tokens)
    seen: set[tuple[int, ...]] = set()
    hits = []
    for row in made.table.select(["content_seed", "prefix_blocks", "prompt_tokens"]).to_pylist():
        prompt = json.loads(maker.ids_json(**row))
        ends = range(16, len(prompt) + 1, 16)
        hits.append(16 * next((k for k, end in enumerate(ends) if tuple(prompt[:end]) not in seen), len(ends)))
        seen.update(tuple(prompt[:end]) for end in ends)
    implied = implied_reuse(made.table, made.block_tokens).hit_tokens // 16 * 16
    assert hits == implied.tolist()


def test_shared_parts_shrink_with_the_lengths() -> None:
    made = plan(prefix={"system_tokens": 640}, length_scale=0.5)
    assert set(implied_reuse(made.table, made.block_tokens).hit_tokens.tolist()) == {0, 320}
