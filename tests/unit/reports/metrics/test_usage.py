"""Usage that its stream proves wrong: tokens are estimated from the arrivals, and it is said."""

from dataclasses import replace

import pytest
from tests.kit.fabricate import Row, fabricate

from tailgate.loadgen.records import NO_COUNT
from tailgate.reports.build import build
from tailgate.reports.compare.runs import read_run
from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.rundir.collect import collect
from tailgate.reports.rundir.run import load_run
from tailgate.reports.rundir.usage import planned_is_limit
from tailgate.reports.validity.server import server_checks
from tailgate.reports.verdicts.gate.metrics import gate_metric, usage_refused

# 8 chunks, 20 ms apart.
EIGHT = Row(at=0.0, gaps=[20.0] * 7, output_planned=8)
ANSWERS = [replace(EIGHT, at=200.0 * i) for i in range(40)]


def summary(folder, rows, **manifest):
    fabricate(folder, rows, **manifest)
    return build(folder)


@pytest.mark.parametrize("claim", [2, 0, NO_COUNT, 9, 2**31 - 1])
def test_usage_that_the_stream_contradicts_is_not_believed(tmp_path, claim):
    found = summary(tmp_path / "run", [replace(row, output_tokens=claim) for row in ANSWERS])
    assert found.latency_ms["tpot"].mean == pytest.approx(20.0)
    assert found.throughput.output_tokens_per_s == pytest.approx(8 * 40 / 10)
    assert found.throughput.estimated_share == 1.0
    assert found.streaming.usage_contradicted == 40
    assert any("usage contradicts the stream in 40 of 40 answers" in notice for notice in found.notices)
    assert not any(finding.kind == "lengths_differ" for finding in found.findings)
    assert found.valid


def test_a_few_wrong_answers_are_estimated_and_the_others_are_not(tmp_path):
    rows = [replace(row, output_tokens=2 if i < 10 else 8) for i, row in enumerate(ANSWERS)]
    found = summary(tmp_path / "run", rows)
    assert found.throughput.estimated_share == pytest.approx(0.25)
    assert found.streaming.usage_contradicted == 10


def test_usage_that_agrees_is_believed(tmp_path):
    found = summary(tmp_path / "run", ANSWERS)
    assert (found.throughput.estimated_share, found.streaming.usage_contradicted) == (0.0, None)
    assert not any("usage" in notice for notice in found.notices)


def test_a_server_that_sends_more_than_was_asked_for_is_believed(tmp_path):
    rows = [replace(row, output_planned=4, output_tokens=8) for row in ANSWERS]
    assert summary(tmp_path / "run", rows).streaming.usage_contradicted is None


def test_counts_of_prompts_that_can_not_be_are_not_believed(tmp_path):
    folder = fabricate(tmp_path / "run", [replace(EIGHT, prompt_tokens=10, cached_tokens=11)])
    collect(folder)
    run = load_run(folder)
    assert run.column("cached_tokens").tolist() == [pytest.approx(float("nan"), nan_ok=True)]


def test_planned_lengths_are_limits_but_for_a_logs_own_bodies():
    replay = {"workload": {"content": {"kind": "replay"}}}
    assert planned_is_limit({}) and planned_is_limit({"output": "natural"}) and planned_is_limit(replay)
    assert not planned_is_limit({**replay, "output": "natural"})
    assert not planned_is_limit({"extra": {"max_tokens": 9}})


def test_what_counts_tokens_is_not_gated_by_wrong_usage_and_the_rest_is(tmp_path):
    folder = tmp_path / "run"
    summary(folder, [replace(row, output_tokens=2) for row in ANSWERS])
    run = read_run(folder)
    of_tokens = ("output_tokens_per_s", "total_tokens_per_s", "cost.per_million_output", "energy.j_per_output_token")
    for key in (*of_tokens, "tpot.p50"):
        assert "usage contradicts" in usage_refused(gate_metric(key), [run])
    for key in ("ttft.p90", "requests_per_s", "goodput"):
        assert usage_refused(gate_metric(key), [run]) == ""


def test_a_counter_of_the_server_is_not_held_against_wrong_usage(tmp_path):
    rows = [replace(row, output_tokens=2) for row in ANSWERS]
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    server = [(t, name, "", value) for name in names for t, value in ((0.0, 0.0), (69.0, 320.0))]
    fabricate(tmp_path / "run", rows, server=server)
    collect(tmp_path / "run")
    check = next(c for c in server_checks(analyse(tmp_path / "run")) if c.name == "token_counts")
    assert (check.status, "contradicts" in check.why) == ("unchecked", True)


def test_chunks_of_several_tokens_are_found_by_usage_where_the_server_does_not_tell(tmp_path):
    """As of a server that sends two tokens a chunk in most answers, and one in the others."""
    doubled = [replace(row, output_tokens=16, output_planned=16) for row in ANSWERS[:30]]
    found = summary(tmp_path / "run", [*doubled, *ANSWERS[30:]])
    assert found.streaming.multi_token_share == pytest.approx(0.75)
    assert found.streaming.tpot_is_bound == 30
    assert any("30 of 40 answers brought more tokens" in notice for notice in found.notices)
    assert read_run(tmp_path / "run").multi_token_share == pytest.approx(0.75)


def test_a_first_chunk_that_is_told_makes_tpot_exact(tmp_path):
    rows = [replace(row, output_tokens=16, output_planned=16, first_chunk_tokens=2) for row in ANSWERS]
    found = summary(tmp_path / "run", rows)
    assert found.latency_ms["tpot"].mean == pytest.approx(10.0)
    assert found.streaming.tpot_is_bound is None


def test_wrong_usage_tells_nothing_of_chunks(tmp_path):
    found = summary(tmp_path / "run", [replace(row, output_tokens=9, output_planned=8) for row in ANSWERS])
    assert found.streaming.multi_token_share is None


def objective(folder, rows, slo, **manifest):
    (judged,) = summary(folder, rows, slo=slo, **manifest).objectives
    return judged


# 60 s of 8 tokens each 100 ms: 80 tokens/s
STEADY = [replace(EIGHT, at=100.0 * i) for i in range(600)]


@pytest.mark.parametrize("rate", ["output_tokens_per_s", "total_tokens_per_s"])
@pytest.mark.parametrize("limit", ["> 1/s", "> 1000/s"])
def test_a_rate_of_tokens_that_are_estimates_is_not_judged(tmp_path, rate, limit):
    exact = objective(tmp_path / "exact", STEADY, {rate: limit}, seconds=60.0)
    assert exact.result == ("met" if limit == "> 1/s" else "broken")
    wrong = [replace(row, output_tokens=2) if i % 100 == 0 else row for i, row in enumerate(STEADY)]
    judged = objective(tmp_path / "wrong", wrong, {rate: limit}, seconds=60.0)
    assert (judged.result, judged.lower_bound, judged.upper_bound) == ("can't tell", None, None)
    assert judged.why == "the server's usage contradicts the stream in 6 answers: how many tokens came is an estimate"


def test_rates_of_requests_and_of_prompts_don_t_rest_on_how_many_tokens_came(tmp_path):
    wrong = [replace(row, output_tokens=2) for row in STEADY]
    for k, rate in enumerate(("requests_per_s", "input_tokens_per_s")):
        assert objective(tmp_path / str(k), wrong, {rate: "> 1/s"}, seconds=60.0).result == "met"


def test_a_rate_of_tokens_of_which_many_came_in_answers_that_failed_is_not_judged(tmp_path):
    def failing(every):
        return [replace(row, status="reset") if i % every == 0 else row for i, row in enumerate(STEADY)]

    slo = {"output_tokens_per_s": "> 1/s"}
    few, many = (objective(tmp_path / str(n), failing(n), slo, seconds=60.0) for n in (200, 10))
    assert (few.result, many.result) == ("met", "can't tell")
    assert many.why.startswith("10 % of the output tokens are of requests that failed or were cut off")


def test_a_limit_on_a_tpot_that_is_a_lower_bound_is_met_only_if_it_is_at_worst(tmp_path):
    # 16 tokens in 8 chunks: 140 ms / 15 = 9.3 ms if the first chunk held one token, 20 ms if it held nine
    rows = [replace(row, output_tokens=16, output_planned=16) for row in STEADY]
    results = {
        limit: objective(tmp_path / str(limit), rows, {"tpot": f"p50 < {limit}ms"}, seconds=60.0)
        for limit in (8, 15, 25)
    }
    assert {limit: judged.result for limit, judged in results.items()} == {8: "broken", 15: "can't tell", 25: "met"}
    assert "lower bound in 600 answers" in results[15].why


def test_unknown_counts_are_empty_in_tables_for_people(tmp_path):
    from tailgate.reports import frames
    from tailgate.reports.documents.run.write import export

    rows = [replace(ANSWERS[0], output_tokens=NO_COUNT), ANSWERS[1]]
    found = summary(tmp_path / "run", rows)
    head, first, second = export(tmp_path / "run", found, "csv").splitlines()
    place = head.split(",").index('"output_tokens"')
    assert (first.split(",")[place], second.split(",")[place]) == ("", "8")
    counts = frames.requests(tmp_path / "run")["output_tokens"]
    assert counts.isna().tolist() == [True, False]
    assert counts[1] == 8


def test_the_row_of_a_tpot_that_is_a_lower_bound_says_so_in_every_document(tmp_path):
    import re
    from io import StringIO

    from rich.console import Console

    from tailgate.reports.documents.render.terminal import print_in_short
    from tailgate.reports.documents.run.write import export, report, run_document

    def documents(folder, rows):
        found = summary(folder, rows)
        out = StringIO()
        print_in_short(run_document(found), Console(file=out, width=160))
        page = re.sub("<[^>]*>", "", report(found, analyse(folder)))
        return out.getvalue(), export(folder, found, "md"), page

    doubled = [replace(row, output_tokens=16, output_planned=16) for row in ANSWERS]
    assert all("TPOT, at least" in text for text in documents(tmp_path / "bound", doubled))
    assert not any("TPOT, at least" in text for text in documents(tmp_path / "exact", ANSWERS))


def test_answers_without_usage_keep_rates_of_tokens_from_being_judged_and_gated(tmp_path):
    folder = fabricate(tmp_path / "run", ANSWERS, slo={"output_tokens_per_s": "> 1/s"})
    without_usage(folder)
    found = build(folder)
    assert found.streaming.usage_missing == 40
    assert found.objectives[0].why == "40 answers came without usage: how many tokens came is an estimate"
    assert "without usage" in usage_refused(gate_metric("output_tokens_per_s"), [read_run(folder)])


def without_usage(folder):
    """Take the server's counts out of what the injector spooled."""
    import pyarrow as pa

    path = folder / "spool" / "injector-0.arrows"
    with pa.ipc.open_stream(pa.OSFile(str(path))) as stream:
        table = stream.read_all()
    for name in ("output_tokens", "prompt_tokens"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.nulls(len(table), pa.int64()))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
