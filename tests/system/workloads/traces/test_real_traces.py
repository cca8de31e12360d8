"""Every reader against the real files: counts, tokens, sharing."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.kit.traces import plan_of, spec

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import TraceSpec, WorkloadSpec
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.statistics.prefix_reuse import implied_reuse
from tailgate.workloads.table.columns import NO_TIME
from tailgate.workloads.traces.export import NAMES, export
from tailgate.workloads.traces.formats import servegen
from tailgate.workloads.traces.replay import Replay, load, reader_of
from tailgate.workloads.traces.rows import Faults, Rows

FORMATS = {
    "azure-2023": "azure", "azure-2024": "azure", "azure-2025-lmm": "azure", "burstgpt": "burstgpt",
    "mooncake": "mooncake", "ragpulse": "ragpulse",
}  # fmt: skip

RAG_PARTS = ("1_", "2_", "3_", "4_", "5_")


def pieces(trace: TraceSpec) -> list[Rows]:
    return list(reader_of(trace)(trace.file, Faults(trace.file, trace.skip_bad_rows)))


def test_every_request_file_has_the_manifests_count(traces: Path) -> None:
    checked = 0
    for entry in json.loads((traces / "MANIFEST.json").read_text()):
        folder, name = entry["path"].split("/", 1)
        if folder in FORMATS and not (folder == "ragpulse" and name.startswith(RAG_PARTS)):
            assert sum(map(len, pieces(spec(traces / entry["path"], FORMATS[folder])))) == entry["records"], entry[
                "path"
            ]
            checked += 1
    assert checked == 14


def test_every_client_file_has_the_manifests_count_of_windows(traces: Path) -> None:
    checked = 0
    for entry in json.loads((traces / "MANIFEST.json").read_text()):
        if entry["path"].startswith("servegen/") and "-trace.csv" in entry["path"]:
            assert len(list(servegen.windows(traces / entry["path"], Faults(traces)))) == entry["records"]
            checked += 1
    assert checked == 12


@pytest.mark.parametrize(
    ("path", "format", "name"),
    [
        ("mooncake/conversation_trace.jsonl.gz", "mooncake", "mooncake_conversation"),
        ("mooncake/synthetic_trace.jsonl.gz", "mooncake", "mooncake_synthetic"),
        ("ragpulse/0_trace.jsonl.gz", "ragpulse", "ragpulse_week"),
    ],
)
def test_whole_traces_have_the_token_totals_of_the_statistics(traces: Path, path: str, format: str, name: str) -> None:
    stats = json.loads((traces / "stats.json").read_text())[name]
    rows = pieces(spec(traces / path, format))
    for kind, column in (("input", "prompt_tokens"), ("output", "output_tokens")):
        total = sum(int(getattr(piece, column).sum()) for piece in rows)
        assert total == pytest.approx(stats[kind]["mean"] * stats[kind]["n"], abs=0.001 * stats[kind]["n"])


def test_agents_sessions_have_the_totals_that_their_files_state(traces: Path) -> None:
    for path in sorted((traces / "kv-cache-tester").glob("trace_*")):
        stated = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())["totals"]
        rows = pieces(spec(path, "kv-cache-tester"))
        assert sum(int(piece.prompt_tokens.sum()) for piece in rows) == stated["combined_tokens"]["input"]
        assert sum(int(piece.output_tokens.sum()) for piece in rows) == stated["combined_tokens"]["output"]


@pytest.mark.parametrize(
    ("path", "format", "blocks", "tokens"),
    [
        ("mooncake/conversation_trace.jsonl.gz", "mooncake", 0.366, 0.374),
        ("mooncake/synthetic_trace.jsonl.gz", "mooncake", 0.640, 0.651),
        ("ragpulse/0_trace.jsonl.gz", "ragpulse", None, 0.314),
    ],
)
def test_the_plan_of_a_trace_shares_what_the_trace_shares(
    traces: Path, path: str, format: str, blocks: float | None, tokens: float
) -> None:
    plan = plan_of(traces / path, format)
    reuse = implied_reuse(plan.table, plan.block_tokens)
    assert reuse.token_share == pytest.approx(tokens, abs=0.001)
    assert blocks is None or reuse.block_share == pytest.approx(blocks, abs=0.001)


def test_scaled_to_a_small_context_a_trace_still_shares_about_as_much(traces: Path) -> None:
    workload = WorkloadSpec(
        trace=spec(traces / "mooncake" / "conversation_trace.jsonl.gz", "mooncake"),
        max_context=4096,
        over_context="scale",
    )
    plan = make_plan(workload, 1)
    assert implied_reuse(plan.table, plan.block_tokens).token_share == pytest.approx(0.374, abs=0.03)


def test_stamps_on_a_grid_are_spread_and_it_is_said(traces: Path) -> None:
    file = traces / "mooncake" / "conversation_trace.jsonl.gz"
    replay = load(spec(file, "mooncake"), 1)
    assert "3 s grid" in replay.notices[0]
    gaps = np.diff(replay.columns.at_ns)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)
    raw = load(spec(file, "mooncake", spread=False), 1)
    assert raw.notices == [] and (np.diff(raw.columns.at_ns) == 0).mean() > 0.9


def test_fine_stamps_are_left_alone(traces: Path) -> None:
    replay = load(spec(traces / "mooncake" / "synthetic_trace.jsonl.gz", "mooncake"), 1)
    assert replay.notices == []


def test_burstgpts_failures_are_left_out_and_counted(traces: Path) -> None:
    replay = load(spec(traces / "burstgpt" / "BurstGPT_1.first400.csv", "burstgpt"), 1)
    assert len(replay.columns) == 383
    assert "17 requests without prompt tokens (failed) left out" in replay.notices[0]
    assert replay.classes[0] == "ChatGPT conversation"


def test_burstgpt_3_keeps_its_sessions_and_counts_an_empty_one_as_its_own(traces: Path) -> None:
    columns = load(spec(traces / "burstgpt" / "BurstGPT_3.first400.csv", "burstgpt"), 1).columns
    assert columns.turn.max() == 23
    # 135 sessions of the conversation log and 6 rows of the API, less what failed.
    assert len(np.unique(columns.session)) == pytest.approx(141, abs=1)


def test_an_agents_steps_follow_each_other_and_its_helpers_are_sessions_of_their_own(traces: Path) -> None:
    plan = plan_of(traces / "kv-cache-tester" / "trace_0277.json", "kv-cache-tester")
    frame = plan.table.to_pandas()
    assert frame.session.nunique() == 5  # itself and four sub-agents
    assert frame[frame.turn > 0].at_ns.isna().all() and frame[frame.turn == 0].at_ns.notna().all()
    assert (frame.groupby("session").turn.apply(list).map(lambda t: t == list(range(len(t))))).all()


def test_agents_of_different_files_share_nothing(traces: Path) -> None:
    plan = plan_of(traces / "kv-cache-tester", "kv-cache-tester")
    ids: dict[str, set[int]] = {}
    for session, blocks in zip(plan.table["session"].to_pylist(), plan.table["prefix_blocks"].to_pylist(), strict=True):
        ids.setdefault(session, set()).update(blocks)
    sessions = list(ids.values())
    # Helpers share with their parent (one file); 5 files: block ids fall into 5 groups.
    groups: list[set[int]] = []
    for some in sessions:
        touching = [group for group in groups if group & some]
        groups = [group for group in groups if not group & some] + [some.union(*touching)]
    assert len(groups) >= 5


def test_images_are_ignored_and_counted(traces: Path) -> None:
    file = traces / "azure-2025-lmm" / "AzureLMMInferenceTrace_multimodal.head-tail.csv"
    assert load(spec(file, "azure")).notices == [f"{file.name}: 7 requests had images, which are ignored"]


def test_ragpulse_without_its_chunk_lengths_shares_nothing_and_says_so(tmp_path: Path, traces: Path) -> None:
    file = tmp_path / "0_trace.jsonl"
    file.write_bytes((traces / "ragpulse" / "0_trace.first300.jsonl").read_bytes())
    replay = load(spec(file, "ragpulse"), 1)
    assert replay.columns.prefix_blocks is None and "no shared prefixes" in replay.notices[0]


def test_servegens_clients_give_their_rates_and_lengths(traces: Path) -> None:
    folder = traces / "servegen" / "language" / "m-large"
    faults = Faults(folder)
    replay = load(spec(folder, "servegen", start="24h", duration="2h"), 1)
    begin, end = 86400.0, 86400.0 + 7200.0
    expected = sum(
        w.rate * 600.0
        for client in servegen.clients(folder, faults)
        for w in client.windows
        if begin <= w.start_s < end
    )
    assert len(replay.columns) == pytest.approx(expected, rel=0.1)
    assert (np.diff(replay.columns.at_ns) >= 0).all() and replay.columns.at_ns.max() < 7200e9
    assert set(replay.tenants) <= {"client 20", "client 34", "client 116", "client 143"}


def test_servegens_rate_can_be_asked_for(traces: Path) -> None:
    folder = traces / "servegen" / "reason" / "deepseek-r1"
    replay = load(spec(folder, "servegen", duration="30m", rate="5/s"), 1)
    assert len(replay.columns) / 1800 == pytest.approx(5, rel=0.2)


def test_servegen_where_nobody_is_active_says_until_when_they_are(traces: Path) -> None:
    with pytest.raises(UserError, match="no client is active from 9e\\+06 s"):
        load(spec(traces / "servegen" / "reason" / "deepseek-r1", "servegen", start=9e6, duration=60), 1)


def test_what_servegens_requests_leave_out_is_said(traces: Path) -> None:
    folder = traces / "servegen"
    said = load(spec(folder / "multimodal" / "mm-image", "servegen", duration="10m")).notices
    assert any("image_count, image_tokens ignored" in notice for notice in said)
    said = load(spec(folder / "reason" / "deepseek-r1", "servegen", duration="10m")).notices
    assert any("reason_ratio ignored" in notice for notice in said)
    said = load(spec(folder / "language" / "m-large", "servegen", start="24h", duration="10m")).notices
    assert not any("ignored" in notice for notice in said)


def test_sessions_whose_turns_follow_their_answers_are_kept_together_at_other_times(traces: Path) -> None:
    trace = {"file": traces / "kv-cache-tester", "format": "kv-cache-tester"}
    own = make_plan(WorkloadSpec.model_validate({"trace": trace}), 1)
    assert "sessions start at once" in own.notices[-1] and "`arrivals` spread them" in own.notices[-1]
    spread = make_plan(
        WorkloadSpec.model_validate({"trace": trace, "arrivals": {"rate": 0.0005}, "duration": "100000s"}), 1
    )
    frame, whole = (plan.table.to_pandas() for plan in (spread, own))
    assert not any("at once" in notice for notice in spread.notices)
    assert (frame.at_ns.notna() == (frame.turn == 0)).all() and frame.at_ns.dropna().is_monotonic_increasing
    assert frame.session.nunique() == pytest.approx(50, rel=0.4) and frame.session.is_monotonic_increasing
    # Round after round, session by session as the trace has them, but for what lies behind the end.
    once = frame[: len(whole)]
    for name in ("session", "turn", "think_ns", "prompt_tokens", "output_tokens"):
        assert (once[name].to_numpy() == whole[name].to_numpy()).all(), name


def test_a_file_of_lengths_only_needs_arrivals_or_users(traces: Path) -> None:
    file = traces / "vidur" / "arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz"
    trace = spec(file, "csv", columns={"prompt_tokens": "num_prefill_tokens", "output_tokens": "num_decode_tokens"})
    with pytest.raises(UserError, match=r"no times.*Give arrivals .*, or users"):
        make_plan(WorkloadSpec(trace=trace), 1)
    assert make_plan(WorkloadSpec(trace=trace, users=4), 1).table.num_rows > 1000
    timed = WorkloadSpec.model_validate({"trace": trace, "arrivals": {"rate": 10}, "duration": 30})
    assert make_plan(timed, 1).table.num_rows == pytest.approx(300, rel=0.3)


def test_a_mooncake_reader_says_so_of_a_ragpulse_file(traces: Path) -> None:
    with pytest.raises(UserError, match="not a list of block ids"):
        load(spec(traces / "ragpulse" / "0_trace.first300.jsonl", "mooncake"))


def conv(traces: Path, **more: Any) -> Replay:
    return load(spec(traces / "azure-2023" / "AzureLLMInferenceTrace_conv.csv", "azure", duration="10m", **more), 3)


@pytest.mark.parametrize(
    ("rate", "way"), [(2.0, "auto"), (2.0, "speed"), (12.0, "auto"), (12.0, "speed"), (20.0, "superpose")]
)
def test_a_trace_can_have_another_rate(traces: Path, rate: float, way: str) -> None:
    columns = conv(traces, rate=rate, rate_by=way).columns
    span = 600.0 if way != "speed" else float(columns.at_ns.max()) / 1e9
    assert len(columns) / span == pytest.approx(rate, rel=0.05)
    assert (np.diff(columns.at_ns) >= 0).all()


def test_leaving_out_cant_give_more(traces: Path) -> None:
    with pytest.raises(UserError, match=r"leaving some out can't give 50.*superpose"):
        conv(traces, rate=50, rate_by="thin")


def test_with_requests_left_out_a_trace_shares_as_much_as_before(traces: Path) -> None:
    file = traces / "mooncake" / "conversation_trace.jsonl.gz"
    made = plan_of(file, "mooncake", rate=0.7)
    assert made.table.num_rows == pytest.approx(12031 * 0.7 / 3.4, rel=0.1)
    assert implied_reuse(made.table, made.block_tokens).token_share == pytest.approx(0.374, abs=0.04)
    assert "by leaving out all requests of a prefix (it names no sessions)" in made.notices[-1]


def test_copies_share_nothing_with_each_other(traces: Path) -> None:
    file = traces / "mooncake" / "conversation_trace.first1000.jsonl"
    single = load(spec(file, "mooncake"), 1)
    double = load(spec(file, "mooncake", rate=2 * 1000 / 300), 1)
    assert single.columns.prefix_blocks is not None and double.columns.prefix_blocks is not None
    once, twice = (set(r.columns.prefix_blocks.flatten().to_pylist()) for r in (single, double))
    assert len(twice) > 1.2 * len(once)
    assert (double.columns.at_ns != NO_TIME).all()


def test_other_seeds_share_alike_but_hold_other_content(traces: Path) -> None:
    file = traces / "mooncake" / "conversation_trace.first1000.jsonl"
    one, other = (make_plan(WorkloadSpec(trace=spec(file, "mooncake")), seed) for seed in (1, 2))
    assert implied_reuse(one.table, 512).token_share == implied_reuse(other.table, 512).token_share
    ids = [set(plan.table["prefix_blocks"].combine_chunks().flatten().to_pylist()) for plan in (one, other)]
    assert not ids[0] & ids[1]


def test_a_closed_loop_goes_round_a_trace_with_new_content(traces: Path) -> None:
    workload = WorkloadSpec(
        trace=spec(traces / "mooncake" / "mooncake_trace.arxiv.first20.jsonl", "mooncake"), users=2, requests=50
    )
    table = make_plan(workload, 1).table
    lengths, content = table["prompt_tokens"].to_pylist(), table["content_seed"].to_pylist()
    assert lengths[:20] == lengths[20:40] and len(set(content)) == 50


def test_a_whole_week_of_rag_starts_at_zero(traces: Path) -> None:
    table = plan_of(traces / "ragpulse" / "0_trace.jsonl.gz", "ragpulse").table
    # Stamps of a second are spread within it.
    assert 0 <= min(table["at_ns"].to_pylist()) < 10**9
    assert set(table["phase"].to_pylist()) == {"measure"}


def test_blocks_of_another_length_are_not_written_as_mooncakes(traces: Path, tmp_path: Path) -> None:
    replay = load(spec(traces / "ragpulse" / "0_trace.first300.jsonl", "ragpulse"))
    with pytest.raises(UserError, match="blocks have 512 tokens"):
        export(replay, tmp_path / "t.jsonl", "mooncake")


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_trace_with_pauses_comes_back_from_the_file_it_was_written_to(
    tmp_path: Path, traces: Path, format: str
) -> None:
    before = load(spec(traces / "kv-cache-tester", "kv-cache-tester"))
    assert (before.columns.at_ns == NO_TIME).mean() > 0.5
    file = tmp_path / f"t.{format}"
    export(before, file, format)
    after = load(spec(file, format, columns=NAMES))
    for name in ("at_ns", "session", "turn", "think_ns", "prompt_tokens", "output_tokens"):
        assert getattr(after.columns, name).tolist() == getattr(before.columns, name).tolist(), name


def test_speed_compresses_pauses_too(traces: Path) -> None:
    once, twice = (load(spec(traces / "kv-cache-tester", "kv-cache-tester", speed=speed)).columns for speed in (1, 2))
    assert once.think_ns.sum() > 0 and (abs(twice.think_ns - once.think_ns / 2) <= 1).all()


def test_a_rate_is_that_of_the_trace_at_its_speed(traces: Path) -> None:
    for way in ("thin", "superpose", "speed"):
        rate = {"thin": 4.0, "superpose": 25.0, "speed": 4.0}[way]
        replay = conv(traces, speed=2, rate=rate, rate_by=way)
        span = 300.0 if way != "speed" else float(replay.columns.at_ns.max()) / 1e9
        assert len(replay.columns) / span == pytest.approx(rate, rel=0.06)
        assert f"became {rate:.4g}" in replay.notices[-1]
    drawn = load(
        spec(traces / "servegen" / "language" / "m-large", "servegen", start="24h", duration="20m", speed=4, rate=20)
    ).columns
    assert len(drawn) / 300 == pytest.approx(20, rel=0.1) and drawn.at_ns.max() <= 300e9
