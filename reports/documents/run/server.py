"""What explains the figures: the diagnosis, the server's own metrics, the GPUs."""

from tailgate.reports.documents.model import Depth, Note, Notes, Row, Section, Table, facts, section
from tailgate.reports.summary.model import Summary
from tailgate.workloads.common.formatting import gib, ms, optional, percent


def diagnosis(summary: Summary) -> Section:
    notes = [Note(one.remedy, one.says, f"{one.kind}: {_figures(one.figures)}", "finding") for one in summary.findings]
    nothing = Note("Nothing in the figures points to a bottleneck.", depth=Depth.PAGE)
    return section("Diagnosis", Notes(notes, numbered=True) if notes else nothing)


def _figures(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {optional(value)}" for name, value in figures.items())


def server(summary: Summary) -> Section:
    view = summary.server
    if not view:
        return section("The server")
    gauges: list[Row] = [
        [label, f"{scale * gauge.mean:,.2f}", f"{scale * gauge.max:,.2f}"]
        for key, label, scale in (
            ("running", "requests running", 1), ("waiting", "requests waiting", 1),
            ("kv_usage", "KV cache in use, %", 100),
        )
        if (gauge := getattr(view, key))
    ]  # fmt: skip
    phases: list[Row] = [
        [name, f"{one.n:,.0f}", ms(one.mean_ms), *map(_bucket, (one.p50_ms, one.p99_ms))]
        for name, one in view.phases.items()
    ]
    endpoints: list[Row] = [
        [one.url, *map(optional, (one.running, one.waiting, one.finished))] for one in view.endpoints
    ]
    how = "Percentiles lie within their bucket; at the window's edges counters are interpolated between scrapes."
    values = {
        "KV cache size, tokens": view.kv_tokens,
        "preemptions": view.preemptions,
        "admission rejections": view.rejections,
        "prompt tokens found in the prefix cache, share": view.prefix_hit_share,
        "tokens per engine step": view.tokens_per_step,
        "engine steps per second": view.steps_per_s,
        "max_num_seqs": view.max_num_seqs,
        "max_num_batched_tokens": view.max_num_batched_tokens,
        "drafted tokens accepted, share": view.draft_acceptance,
        **{f"waiting for: {reason}, mean": mean for reason, mean in view.waiting_by_reason.items() if reason},
    }
    return section(
        "The server",
        Table(["", "mean", "largest"], gauges),
        facts((label, optional(value)) for label, value in values.items()),
        Table(["phase", "n", "mean", "p50 (bucket)", "p99 (bucket)"], phases, "Its own histograms, ms"),
        Note(how) if phases else None,
        Table(["", "running", "waiting", "finished"], endpoints, "Endpoints") if len(endpoints) > 1 else None,
        depth=Depth.PAGE,
    )


def _bucket(percentile: tuple[float | None, ...]) -> str:
    value, low, high = percentile
    return f"{ms(value)} ({ms(low)} to {'∞' if high is None else ms(high)})"


def gpus(summary: Summary) -> Section:
    rows: list[Row] = [
        [
            one.gpu, optional(one.power_w), optional(one.sm_clock_mhz), percent(one.utilization),
            gib(one.mem_used_bytes), gib(one.mem_peak_bytes), optional(one.temperature_max_c),
            *map(percent, (one.slowdown_share, one.mild_slowdown_share, one.power_cap_share)),
            optional(one.energy_j),
        ]
        for one in (summary.gpu.gpus if summary.gpu else ())
    ]  # fmt: skip
    heads = [
        "GPU", "W", "MHz", "busy", "memory, GiB", "peak, GiB", "°C", "hardware slowdown", "mild slowdown",
        "at power cap", "energy, J",
    ]  # fmt: skip
    how = Note("Busy says that some kernel ran, not how full the GPU was.") if rows else None
    return section("GPUs", how, Table(heads, rows), depth=Depth.PAGE)
