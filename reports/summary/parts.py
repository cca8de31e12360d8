"""The sections of a summary that are counted out of the run's rows; the others are as they were worked out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tailgate.loadgen.records import Status
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.breakdown import GroupFigures
from tailgate.reports.metrics.catalogue import METRICS
from tailgate.reports.metrics.in_flight import InFlight
from tailgate.reports.metrics.requests import distribution, multi_token_chunks, tpot_is_bound
from tailgate.reports.metrics.slo import Slo
from tailgate.reports.metrics.throughput import answer_ended_ns
from tailgate.reports.summary import model
from tailgate.reports.summary.latency import LatencySummary
from tailgate.reports.summary.objective_model import Objective
from tailgate.reports.summary.objectives import Judged
from tailgate.reports.telemetry.client import busiest_second, client_column, lag_percentile
from tailgate.reports.telemetry.gpu import GpuView, whole_gpus
from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.common.formatting import with_unit

_LAGS = {"p50": 50, "p99": 99, "max": 100}
# A simulated step that is late by more than this share of a token gap is worth a word.
_SIMULATED_LATE: Final = 0.1
# Users without a request for a larger share of the window are worth a word, ...
_RUN_OUT: Final = 0.05
# ... a window of fewer answers' lengths, and streams that stay open for longer than this.
_LENGTHS: Final = 3
_STAYS_OPEN_S: Final = 0.5
# What a run lacks without a file.
_WITHOUT: Final = {
    "arrivals.parquet": "no ITL, stalls or tokens over time",
    "client.parquet": "whether the load generator kept up can't be checked",
    "plan.parquet": "no reuse of prefixes is known",
    "server.parquet": "no figures of the server",
    "gpu.parquet": "no figures of GPUs",
    "host.parquet": "no figures of the host",
}


def load(analysis: Analysis, flight: InFlight | None, overloaded: bool | None) -> model.LoadSummary:
    run = analysis.run
    seconds = run.duration_s
    codes, names = run.texts("status")
    counts = np.bincount(codes[run.measured], minlength=len(names))
    by_status = dict(zip(names, counts.tolist(), strict=True))
    in_order = {status.value: by_status[status.value] for status in Status if by_status.get(status.value)}
    return model.LoadSummary(
        loop=run.manifest.loop,
        offered_rps=int(np.count_nonzero(analysis.offered)) / seconds if seconds else None,
        sent_rps=analysis.sent_rps,
        duration_s=seconds,
        requests={"planned": int(counts.sum()), "ok": 0, **in_order},
        all_phases={"planned": len(run), "ok": int(np.count_nonzero(run.ok))},
        users=run.manifest.users or None,
        in_flight=flight,
        overloaded=overloaded,
        users_run_out_s=None if (since := run.users_run_out_ns) is None else (run.window_ns[1] - since) / 1e9,
    )


def gpus(views: list[GpuView]) -> model.GpuSummary | None:
    """All GPUs, and what concerns them together; None without any."""
    if not views:
        return None
    slow = [view.slowdown_share for view in views if view.slowdown_share is not None]
    power = [view.power_w for view in views if view.power_w is not None]
    return model.GpuSummary(len(whole_gpus(views)), sum(power) if power else None, max(slow, default=None), views)


def slo(analysis: Analysis, judged: list[Judged]) -> model.SloSummary | None:
    if not judged and not analysis.has_good:
        return None
    seconds, offered = analysis.run.duration_s, int(np.count_nonzero(analysis.judged))
    good = int(np.count_nonzero(analysis.good))
    unknown = bool((analysis.judged & analysis.unknown).any())
    admitted = offered - int(np.count_nonzero(analysis.judged & analysis.run.is_text("status", "rejected")))
    return model.SloSummary(
        attained=good / offered if offered and not unknown else None,
        attained_of_admitted=good / admitted if admitted and not unknown else None,
        good=None if unknown else good,
        goodput_rps=good / seconds if seconds and not unknown else None,
        good_output_tokens_per_s=analysis.good_tokens_inside / seconds if seconds else None,
        good_means=_conditions(analysis.slo),
        good_means_by_class={name: _conditions(slo) for name, slo in analysis.class_slos.items() if slo.good},
        thresholds=[_objective(objective) for objective in judged],
        good_ends=_good_ends(analysis) if not unknown else None,
    )


def _good_ends(analysis: Analysis) -> tuple[int, int] | None:
    if not analysis.scan.bounded:
        return None
    return int(np.count_nonzero(analysis.good_of("high"))), int(np.count_nonzero(analysis.good_of("low")))


def _objective(judged: Judged) -> Objective:
    threshold = judged.threshold
    unit = METRICS[threshold.metric].unit
    return Objective(
        objective=f"{judged.scope}: {threshold.text}" if judged.scope else threshold.text,
        result=judged.result,
        value=judged.value,
        lower_bound=judged.below,
        upper_bound=judged.above,
        limit=threshold.limit,
        unit="fraction" if unit == "%" else unit,
        why=judged.why,
        as_measured=judged.as_measured,
        beyond=judged.beyond,
        found=_found(judged),
        own_error=judged.error,
    )


def _found(judged: Judged) -> str:
    """What was found, in words: the figure; of a percentile that has none, or was judged so, how many are over it."""
    metric = METRICS[judged.threshold.metric]
    figure = "" if judged.value is None else with_unit(judged.value * metric.scale, metric.unit)
    return "; ".join(text for text in (figure, judged.counts) if text) or "not known"


def _conditions(slo: Slo) -> list[str]:
    return [f"{c.metric} {c.op} {c.limit:g} ms" for c in slo.good]


def streaming(analysis: Analysis) -> model.Streaming:
    run = analysis.run
    rows = run.measured & (run.column("chunks") > 0)
    chunks, several = run.column("chunks")[rows], multi_token_chunks(run)[rows]
    known = np.isfinite(several)
    total, known_total = float(chunks.sum()), float(chunks[known].sum())

    def share(name: str) -> float | None:
        return float(run.column(name)[rows].sum()) / total if total else None

    return model.Streaming(
        arrivals=int(total),
        multi_token_share=float(several[known].sum()) / known_total if known_total else None,
        client_coalesced_share=share("client_coalesced"),
        server_coalesced_share=share("server_coalesced"),
        usage_contradicted=int(np.count_nonzero(run.usage_contradicted & run.measured)) or None,
        usage_missing=int(np.count_nonzero(run.usage_missing & run.measured)) or None,
        tpot_is_bound=int(np.count_nonzero(tpot_is_bound(run) & run.measured)) or None,
    )


def connections(analysis: Analysis) -> model.Connections:
    """Connections that the measure phase's requests opened, and what their set-up took."""
    run = analysis.run
    ms = (run.column("connected_ns") - run.column("connect_start_ns")) / 1e6
    opened = run.measured & np.isfinite(ms)
    return model.Connections(
        sent=int(np.count_nonzero(run.measured & np.isfinite(run.column("sent_ns")))),
        new=int(np.count_nonzero(opened)),
        set_up_ms=LatencySummary.of(distribution(ms, opened, analysis.figures.order)),
    )


def errors(analysis: Analysis) -> model.Errors:
    """Requests of the measure phase that did not end ok, by kind, each with an example."""
    run = analysis.run
    judged, failed = int(np.count_nonzero(analysis.judged)), int(np.count_nonzero(analysis.failed))
    codes, names = run.texts("status")
    by_status = {name: np.flatnonzero(run.measured & (codes == code)) for code, name in enumerate(names)}
    kinds = [_kind(run.requests, name, rows) for name, rows in by_status.items() if name != "ok" and len(rows)]
    return model.Errors(failed / judged if judged else None, failed, sorted(kinds, key=lambda kind: -kind.count))


def _kind(requests: Any, status: str, places: Any) -> model.ErrorKind:
    rows = requests.take(pa.array(places)).select(["index", "request_id", "http_status", "error"])
    example = rows.filter(pc.is_valid(rows["error"])).slice(0, 1).to_pylist() or rows.slice(0, 1).to_pylist()
    codes = {str(v["values"]): v["counts"] for v in pc.value_counts(rows["http_status"]).to_pylist()}
    codes.pop("None", None)
    return model.ErrorKind(status, len(places), example[0], codes)


def client(analysis: Analysis) -> model.ClientSummary:
    run = analysis.run
    turns, steps = client_column(run, "loop_max_ns"), client_column(run, "clock_step_ns")

    def histogram(name: str) -> dict[str, float | None]:
        return {at: lag_percentile(run, name, q) for at, q in _LAGS.items()}

    return model.ClientSummary(
        dispatch_lag_ms=_lags(analysis.dispatch_lag_ms),
        send_lag_ms=_lags(analysis.send_lag_ms),
        receive_lag_ms=histogram("receive_lag"),
        cpu_fraction_max=busiest_second(run),
        loop_max_ms=float(turns.max()) / 1e6 if len(turns) else None,
        clock_offset_ms=float(np.abs(steps).max()) / 1e6 if len(steps) else None,
        injectors=run.manifest.injectors,
        workers=run.manifest.workers,
        stamp=run.manifest.stamp,
        turnaround_lag_ms=histogram("turnaround_lag") if run.manifest.loop == "closed" else None,
        expected_error_ms=_expected(run.manifest.expected_error),
    )


def _expected(error: Mapping[str, Any]) -> dict[str, float] | None:
    return {name: error[f"{name}_ms"] for name in ("ttft", "itl")} if error else None


def _lags(lags: Floats) -> dict[str, float | None]:
    """Percentiles of any number of lags: every one was recorded, so that they are no sample."""
    if not len(lags):
        return dict.fromkeys(_LAGS)
    return {name: float(np.percentile(lags, q, method="inverted_cdf")) for name, q in _LAGS.items()}


def notices(analysis: Analysis, splits: Mapping[str, Sequence[GroupFigures]], unreadable_events: int) -> Iterator[str]:
    """What could not be read, and what stands for something else."""
    run, sample = analysis.run, analysis.scan.sample
    for name, why in run.problems.items():
        if _is_news(name, why):
            yield f"{name} {why}: {_WITHOUT[name]}"
    if analysis.several_behind:
        yield (
            f"several servers answer behind {' and '.join(analysis.several_behind)}, and each scrape of /metrics meets "
            "one of them: name them under target.urls (repeat --target). Until then the servers' own figures are left "
            "out, and token counts and foreign traffic are not checked"
        )
    if run.absent:
        yield f"requests.parquet has no column {', '.join(run.absent)}: what they tell is left out"
    if unreadable_events:
        yield f"events.jsonl: {unreadable_events:,} lines can't be read and are left out"
    if sample.stride > 1:
        yield (
            f"ITL over time, by group and its intervals are from every {sample.stride}th request "
            "(its percentiles over all requests are exact)"
        )
    for name, groups in splits.items():
        if (others := groups[-1].stands_for) > 1:
            yield f"the split by {name.replace('_', ' ')} shows the {others:,} smallest groups together"
    yield from _window(analysis)
    yield from _usage(analysis)
    yield from _simulated_late(analysis)


def _window(analysis: Analysis) -> Iterator[str]:
    """Where the window shows how a load begins or ends rather than what it is in between."""
    run, seconds = analysis.run, analysis.run.duration_s
    workload = run.manifest.spec.get("workload") or {}
    users, count = int(workload.get("users") or 0), int(workload.get("requests") or 0)
    if run.ended_by_count and count < users:
        yield f"{count:,} requests are fewer than {users:,} users: {users - count:,} of them never had one to send"
    since = run.users_run_out_ns
    if since is not None and (share := (run.window_ns[1] - since) / 1e9 / seconds) > _RUN_OUT:
        yield (
            f"users ran out of requests in the last {100 * share:.0f} % of the window of {seconds:.3g} s, since the "
            "loop ended by its number of requests: rates are over all of it, in which fewer and fewer users waited. "
            "More requests, or a duration, make that part small"
        )
    answered = run.ok & run.measured
    took = (answer_ended_ns(run) - run.column("dispatched_ns"))[answered] / 1e9
    late = int(np.count_nonzero(answer_ended_ns(run)[answered] >= run.window_ns[1]))
    if not run.ended_by_count and late and seconds < _LENGTHS * (median := float(np.median(took))):
        yield (
            f"the window of {seconds:.3g} s is hardly longer than an answer (p50 {median:.3g} s), and {late:,} of "
            f"{len(took):,} answers ended after it: its rates are those of a load that begins. Measure for longer"
        )
    open_s = (run.column("end_ns") - run.column("last_token_ns"))[answered] / 1e9
    open_s = open_s[np.isfinite(open_s)]
    if len(open_s) and (median := float(np.median(open_s))) > _STAYS_OPEN_S:
        waits = ", for which the users of a closed loop wait" if run.manifest.loop == "closed" else ""
        yield f"streams stayed open for {median:.3g} s (p50) after their last token{waits}: the server ends them late"


def _usage(analysis: Analysis) -> Iterator[str]:
    """Where the server's counts of tokens are wrong or missing."""
    run = analysis.run
    ok = run.ok & run.measured
    answers, wrong = int(np.count_nonzero(ok)), int(np.count_nonzero(run.usage_contradicted & run.measured))
    if wrong:
        yield (
            f"the server's usage contradicts the stream in {wrong:,} of {answers:,} answers (more chunks of content "
            "than tokens, more tokens than were asked for, or no count at all): their tokens are estimated from the "
            "arrivals, TPOT too, and neither throughput in tokens nor cost is judged. Look for a gateway that leaves "
            "reasoning out of usage"
        )
    bounds = int(np.count_nonzero(tpot_is_bound(run) & run.measured))
    if bounds:
        yield (
            f"{bounds:,} of {answers:,} answers brought more tokens by usage than chunks of content, and the server "
            "doesn't tell which chunk holds how many: their TPOT counts the first chunk as one token and is a lower "
            "bound, ITL is between chunks, and the share of chunks with several tokens is by usage (speculative "
            "decoding, logprobs on a busy server, a gateway that bundles, or text in fields that are not known here)"
        )
    missing = int(np.count_nonzero(run.usage_missing & run.measured))
    if missing:
        yield (
            f"{missing:,} of {answers:,} answers came without usage: their tokens are estimated from the arrivals, and "
            "neither throughput in tokens nor cost is judged"
        )


def _is_news(name: str, why: str) -> bool:
    """Telemetry that was never sampled is no news; a damaged file always is."""
    return "missing" not in why or name in ("arrivals.parquet", "client.parquet", "plan.parquet")


def _simulated_late(analysis: Analysis) -> Iterator[str]:
    """Where an embedded engine could not keep its own time, its latencies are this machine's."""
    server, gap = analysis.server, analysis.latencies["itl"].at(50).value
    if not analysis.run.manifest.target.simulated or server is None or not gap:
        return
    late_s = server.delta("tailgate_engine_step_lateness_seconds_sum")
    steps = server.delta("tailgate_engine_step_lateness_seconds_count")
    if late_s and steps and 1000 * late_s / steps > _SIMULATED_LATE * gap:
        yield (
            f"the embedded engine's steps came {1000 * late_s / steps:.1f} ms late on average, where the median gap "
            f"between tokens is {gap:.1f} ms: this machine is too slow for the load that it simulates"
        )
