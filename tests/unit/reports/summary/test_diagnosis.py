"""Each finding appears on its own evidence, with its figures, and not without it."""

import json
from dataclasses import replace

import pytest
from tests.kit.fabricate import Row, S, fabricate

from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.rundir.collect import collect
from tailgate.reports.summary.findings import FindingKind
from tailgate.reports.summary.summary import summary_of
from tailgate.reports.telemetry.server import server_view

ROWS = [Row(at=50.0 * i, gaps=[20.0] * 9) for i in range(200)]


def scrape(gauges=None, counters=None, phases=None, labels="{}"):
    """Samples each second from -1 s to 19 s; counters and phases grow evenly, phases are (mean in s, count)."""
    rows = []
    for t in range(-1, 20):
        rows += [(t, name, labels, value) for name, value in (gauges or {}).items()]
        rows += [(t, name, labels, value * (t + 1) / 20) for name, value in (counters or {}).items()]
        for name, (mean, count) in (phases or {}).items():
            grown = count * (t + 1) / 20
            rows.append((t, f"vllm:{name}_bucket", json.dumps({"le": "+Inf"}), grown))
            rows.append((t, f"vllm:{name}_sum", "{}", mean * grown))
    return rows


def found(run_dir, rows=ROWS, fingerprint=None, events=(), **options):
    from tailgate.reports.rundir.manifest import TargetRecord

    run_dir = fabricate(run_dir, rows, target=TargetRecord(kind="vllm", fingerprint=fingerprint or {}), **options)
    (run_dir / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    collect(run_dir)
    return {finding.kind: finding for finding in summary_of(analyse(run_dir)).findings}


WAITING = {"vllm:num_requests_waiting": 5.0, "vllm:num_requests_running": 16.0}
QUEUED = {"request_queue_time_seconds": (0.4, 200), "time_to_first_token_seconds": (0.5, 200)}


def test_a_quiet_run_has_no_findings(tmp_path):
    assert found(tmp_path / "run") == {}


def test_waiting_with_a_full_kv_cache_is_kv_bound(tmp_path):
    server = scrape(WAITING | {"vllm:kv_cache_usage_perc": 0.97}, phases=QUEUED)
    finding = found(tmp_path / "run", server=server)[FindingKind.QUEUE_BOUND_KV]
    assert finding.figures["waiting_mean"] == pytest.approx(5.0)
    assert finding.figures["kv_usage_mean"] == pytest.approx(0.97)
    assert finding.figures["queue_share_of_ttft"] == pytest.approx(0.8)
    assert "97 %" in finding.says


def test_waiting_with_a_full_batch_is_bound_by_max_num_seqs(tmp_path):
    server = scrape(WAITING | {"vllm:kv_cache_usage_perc": 0.2}, phases=QUEUED)
    fingerprint = {"config": {"scheduler_config": {"max_num_seqs": 16}}}
    finding = found(tmp_path / "run", server=server, fingerprint=fingerprint)[FindingKind.QUEUE_BOUND_SEQS]
    assert finding.figures["max_num_seqs"] == 16
    assert "max-num-seqs" in finding.remedy


def test_waiting_for_neither_is_still_a_queue(tmp_path):
    assert FindingKind.QUEUE_BOUND in found(tmp_path / "run", server=scrape(WAITING, phases=QUEUED))


def test_a_short_wait_within_a_long_ttft_is_no_queue(tmp_path):
    phases = {"request_queue_time_seconds": (0.05, 200), "time_to_first_token_seconds": (0.5, 200)}
    assert not [k for k in found(tmp_path / "run", server=scrape(WAITING, phases=phases)) if k.startswith("queue")]


def test_preemptions_are_counted_per_request_that_ended_in_the_window(tmp_path):
    # half of the counter's growth falls into the window, in which 191 of the requests end, and 400 before it
    rows = [Row(at=1.0 * i, ttft=1.0, phase="warmup") for i in range(400)] + [
        replace(row, at=row.at + 500) for row in ROWS
    ]
    server = scrape(counters={"vllm:num_preemptions_total": 40.0})
    finding = found(tmp_path / "run", rows, server=server, warmup=0.5, seconds=9.5)[FindingKind.PREEMPTION_THRASH]
    assert finding.figures["preemptions"] == pytest.approx(19.0)
    assert finding.figures["preemptions_per_request"] == pytest.approx(19 / 185, rel=0.02)


def test_waiting_for_something_other_than_room_says_so(tmp_path):
    server = scrape(WAITING | {"vllm:kv_cache_usage_perc": 0.2}, phases=QUEUED)
    for reason, value in (("capacity", 1.0), ("deferred", 4.0)):
        server += scrape({"vllm:num_requests_waiting_by_reason": value}, labels=json.dumps({"reason": reason}))
    finding = found(tmp_path / "run", server=server)[FindingKind.QUEUE_DEFERRED]
    assert finding.figures["waiting_deferred_mean"] == pytest.approx(4.0)
    assert finding.figures["waiting_capacity_mean"] == pytest.approx(1.0)


def test_prefill_that_takes_most_of_the_time(tmp_path):
    phases = {"request_prefill_time_seconds": (0.6, 200), "request_decode_time_seconds": (0.4, 200)}
    finding = found(tmp_path / "run", server=scrape(phases=phases))[FindingKind.PREFILL_BOUND]
    assert finding.figures["prefill_share"] == pytest.approx(0.6)


def test_decode_that_takes_most_of_the_time(tmp_path):
    phases = {"request_prefill_time_seconds": (0.1, 200), "request_decode_time_seconds": (0.9, 200)}
    server = scrape({"vllm:num_requests_running": 12.0}, phases=phases)
    finding = found(tmp_path / "run", server=server, fingerprint={"max-num-seqs": 64})[FindingKind.DECODE_BOUND]
    assert finding.figures["batch_fill"] == pytest.approx(12 / 64)
    assert finding.remedy.startswith("More load")


def test_decode_of_full_steps_asks_for_faster_ones(tmp_path):
    phases = {
        "request_prefill_time_seconds": (0.1, 200), "request_decode_time_seconds": (0.9, 200),
        "iteration_tokens_total": (12.0, 800),
    }  # fmt: skip
    server = scrape({"vllm:num_requests_running": 12.0}, phases=phases)
    finding = found(tmp_path / "run", server=server, fingerprint={"max-num-seqs": 16})[FindingKind.DECODE_BOUND]
    assert finding.figures["tokens_per_step"] == pytest.approx(12.0)
    assert finding.figures["step_ms"] == pytest.approx(25.0)
    assert finding.remedy.startswith("Faster steps")


def test_decode_without_a_figure_of_its_steps_is_no_finding(tmp_path):
    phases = {"request_prefill_time_seconds": (0.1, 200), "request_decode_time_seconds": (0.9, 200)}
    server = scrape({"vllm:num_requests_running": 12.0}, phases=phases)
    assert FindingKind.DECODE_BOUND not in found(tmp_path / "run", server=server)


def test_load_that_grows_all_along_is_overload(tmp_path):
    rows = [Row(at=10.0 * i, ttft=1000.0 + 5 * i + 37 * i % 60) for i in range(1000)]
    assert found(tmp_path / "run", rows)[FindingKind.OVERLOADED].figures["in_flight_growth"] > 100


def test_a_slow_client_is_named_before_anything_else(tmp_path):
    rows = [Row(at=50.0 * i, gaps=[20.0] * 9, late=30.0) for i in range(200)]
    findings = found(tmp_path / "run", rows, server=scrape(WAITING, phases=QUEUED))
    assert next(iter(findings)) == FindingKind.CLIENT_BOUND
    assert findings[FindingKind.CLIENT_BOUND].figures == {"dispatch_lag_ms": 30.0}


def test_a_scale_event_in_the_window_is_told_and_one_before_it_is_not(tmp_path):
    event = {"t_ns": 3 * S, "kind": "scale", "text": "2 replicas"}
    assert "2 replicas" in found(tmp_path / "a", events=[event])[FindingKind.CHANGED_IN_WINDOW].says
    assert found(tmp_path / "b", events=[event], warmup=4.0) == {}


def test_a_server_that_comes_back_as_another_process_is_a_cold_start(tmp_path):
    from tailgate.reports.rundir.telemetry import read_server
    from tailgate.reports.telemetry.annotations import annotations

    server = [(t, "up", "{}", float(not 3 <= t < 6)) for t in range(12)]
    server += [(t, "process_start_time_seconds", "{}", 100.0 if t < 3 else 104.0) for t in range(12) if not 3 <= t < 6]
    run_dir = fabricate(tmp_path / "samples", ROWS, server=server)
    events = annotations(read_server(run_dir), None)
    assert [event["kind"] for event in events] == ["scale", "cold-start", "restart"]
    finding = found(tmp_path / "run", events=events)[FindingKind.CHANGED_IN_WINDOW]
    assert finding.figures == {"changes": 3.0, "first_at_s": 3.0}
    assert "cold-start: 1" in finding.says


def test_a_first_tenth_that_is_slower_is_not_warm(tmp_path):
    rows = [Row(at=50.0 * i, gaps=[40.0 if i < 20 else 20.0] * 9) for i in range(200)]
    finding = found(tmp_path / "run", rows)[FindingKind.NOT_WARM]
    assert finding.figures == {"tpot_first_tenth_over_rest": 2.0}


def test_rejections_are_shed_load(tmp_path):
    rows = [Row(at=50.0 * i, gaps=[20.0] * 9) for i in range(190)]
    rows += [Row(at=9500.0 + i, status="rejected", http_status=503, ttft=None) for i in range(10)]
    assert found(tmp_path / "run", rows)[FindingKind.SHED].figures == {"rejected": 10.0, "rejected_share": 0.05}


def test_answers_that_pause_are_stalls(tmp_path):
    rows = [Row(at=50.0 * i, gaps=[20.0] * 8 + [900.0 if i % 20 == 0 else 20.0]) for i in range(200)]
    finding = found(tmp_path / "run", rows)[FindingKind.STALLS]
    assert finding.figures["stalled_share"] == pytest.approx(0.05)


def test_endpoints_that_carry_unequal_loads(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tailgate.reports.rundir.telemetry import SERVER_SCHEMA

    run_dir = fabricate(tmp_path / "run", ROWS)
    samples = [
        {"t_ns": t * S, "endpoint": url, "name": "vllm:num_requests_running", "labels": "{}", "value": value}
        for t in range(12)
        for url, value in (("http://a", 9.0), ("http://b", 3.0))
    ]
    pq.write_table(pa.Table.from_pylist(samples, SERVER_SCHEMA), run_dir / "server.parquet")
    collect(run_dir)
    results = summary_of(analyse(run_dir))
    (finding,) = results.findings
    assert (finding.kind, finding.figures) == (FindingKind.IMBALANCE, {"most_running": 9.0, "least_running": 3.0})
    assert results.server.running.mean == 12.0


def test_an_idle_deployment_is_under_used_at_the_stated_demand(tmp_path):
    gpus = {"type": "l4", "price_per_hour": 1.0, "demand_rps": 3.8, "capacity_rps": 10}
    finding = found(tmp_path / "run", spec={"gpus": gpus})[FindingKind.UNDER_USED]
    assert finding.says == "At the stated demand 62 % of the capacity is idle."


def test_lengths_that_were_not_obeyed(tmp_path):
    rows = [Row(at=50.0 * i, gaps=[20.0] * (8 if i < 10 else 9), output_planned=10) for i in range(200)]
    assert found(tmp_path / "run", rows)[FindingKind.LENGTHS_DIFFER].figures["mismatched"] == 10


def test_no_finding_is_without_a_figure_and_a_remedy(tmp_path):
    rows = [Row(at=10.0 * i, ttft=1000.0 + 5 * i, late=30.0, gaps=[1.0] * 8 + [900.0]) for i in range(900)]
    rows += [Row(at=9500.0, status="rejected", ttft=None)]
    findings = found(tmp_path / "run", rows, server=scrape(WAITING, phases=QUEUED))
    assert len(findings) >= 4
    assert all(finding.figures and finding.remedy and finding.says for finding in findings.values())


class TestTooLittleEvidence:
    """A finding on the load needs answers, and gauges more than a moment."""

    SERVER = scrape(
        WAITING | {"vllm:kv_cache_usage_perc": 0.99},
        {"vllm:num_preemptions_total": 400.0},
        QUEUED | {"request_prefill_time_seconds": (0.6, 200), "request_decode_time_seconds": (0.4, 200)},
    )

    @pytest.mark.parametrize("answers", [0, 19, 20])
    def test_of_a_load_with_few_answers_nothing_is_said(self, tmp_path, answers):
        rows = [
            row if i < answers else replace(row, status="timeout", ttft=None, end_after=30_000.0)
            for i, row in enumerate(ROWS)
        ]
        kinds = {*found(tmp_path / "run", rows, server=self.SERVER)}
        on_load = {FindingKind.QUEUE_BOUND_KV, FindingKind.PREEMPTION_THRASH, FindingKind.PREFILL_BOUND}
        assert kinds & (on_load | {FindingKind.OVERLOADED}) == (on_load if answers == 20 else set())

    def test_gauges_of_a_few_seconds_are_a_moment(self, tmp_path):
        rows = [Row(at=10.0 * i, gaps=[20.0] * 9) for i in range(1000)]
        assert FindingKind.QUEUE_BOUND in found(tmp_path / "long", rows, server=scrape(WAITING))
        assert found(tmp_path / "short", rows[:300], server=scrape(WAITING), seconds=3.0) == {}

    def test_one_pause_in_two_dozen_answers_may_be_chance(self, tmp_path):
        rows = [Row(at=400.0 * i, gaps=[20.0] * 8 + [900.0 if i == 7 else 20.0]) for i in range(24)]
        assert found(tmp_path / "run", rows) == {}


class TestServerView:
    def view(self, run_dir, server, **options):
        collect(fabricate(run_dir, ROWS, server=server, **options))
        return server_view(analyse(run_dir))

    def test_rates_are_over_the_steady_window_only(self, tmp_path):
        server = scrape(counters={"vllm:prefix_cache_queries_total": 2000.0, "vllm:prefix_cache_hits_total": 500.0})
        assert self.view(tmp_path / "run", server).prefix_hit_share == pytest.approx(0.25)

    def test_tokens_per_step_and_steps_per_second(self, tmp_path):
        server = scrape(phases={"iteration_tokens_total": (64.0, 2000)})
        view = self.view(tmp_path / "run", server)
        assert (view.tokens_per_step, view.steps_per_s) == (pytest.approx(64.0), pytest.approx(100.0))

    def test_the_size_of_the_kv_cache_comes_from_its_labels(self, tmp_path):
        labels = json.dumps({"block_size": "16", "num_gpu_blocks": "1000"})
        view = self.view(tmp_path / "run", scrape({"vllm:cache_config_info": 1.0}, labels=labels))
        assert view.kv_tokens == 16_000

    def test_what_the_server_does_not_tell_is_none(self, tmp_path):
        view = self.view(tmp_path / "run", scrape({"other": 1.0}))
        assert (view.running, view.kv_usage, view.preemptions, view.phases) == (None, None, None, {})
