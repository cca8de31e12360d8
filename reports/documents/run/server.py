"""What explains the figures: the diagnosis, the server's own metrics, the GPUs, the deployment."""

from typing import Any, Final

from tailgate.reports.documents.model import Block, Depth, Note, Notes, Row, Section, Table, TableCell, facts, section
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.findings import FindingKind
from tailgate.reports.summary.model import Summary
from tailgate.reports.telemetry.deployment import DeploymentMemory, Lifecycle
from tailgate.workloads.common.formatting import gib, ms, optional, percent, plain

_SERVER: Final = {
    "model_gib": "weights, GiB",
    "graph_gib": "CUDA graphs, GiB",
    "kv_cache_gib": "KV cache, GiB",
    "kv_cache_tokens": "KV cache, tokens",
    "kv_blocks": "KV blocks",
    "kv_block_tokens": "tokens per block",
    "kv_bytes_per_token": "KV bytes per token",
}
_UNTOLD: Final = "neither the driver nor the server says it"
_PHASES: Final = {
    "queue": "in the queue", "inference": "prefill and decode", "ttft": "TTFT", "itl": "ITL (of gaps)", "e2e": "E2E",
}  # fmt: skip
_MEMORY: Final = {
    "total": "has",
    "before_start": "before start",
    "loaded": "when up",
    "taken": "taken",
    "peak": "peak in the run",
    "headroom": "least free",
    "reserved": "reserved by the driver",
    "processes": "held by processes",
    "after_stop": "after its end",
}


def deployment(summary: Summary, manifest: Manifest | None) -> Section:
    life, vram = summary.life, summary.vram
    return section(
        "The deployment",
        *(_lifecycle(life) if life else ()),
        *(_memory(vram) if vram else ()),
        _settings(manifest) if manifest else None,
    )


def _lifecycle(life: Lifecycle) -> list[Block]:
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in life.phases.items())
    rows = [
        *((name, f"{seconds:.2f}") for name, seconds in life.phases.items()),
        ("from spawn to ready", f"{life.ready_s:.2f}"),
        *((f"its log: {name}", plain(value)) for name, value in life.details.items()),
    ]
    return [
        Note(f"cold start {life.ready_s:.1f} s ({phases})", depth=Depth.BRIEF),
        facts(rows, "Cold start, seconds", head=("phase", "s")),
        Note(_end(life), depth=Depth.PAGE),
    ]


def _end(life: Lifecycle) -> str:
    if life.stop_s is None:
        return "It was not stopped by this run."
    how = "had to be killed" if life.killed else "ended by SIGTERM"
    text = f"Its end: it {how} within {life.stop_s:.1f} s (exit code {life.exit_code})"
    if life.port_free is False:
        text += "; its port did not come back"
    if life.memory_back_s is not None:
        text += f"; its GPU memory was back {life.memory_back_s:.1f} s later"
    return f"{text}."


def _memory(vram: DeploymentMemory) -> list[Block]:
    server = {label: vram.server[key] for key, label in _SERVER.items() if key in vram.server}
    sizes = ((label, plain(value)) for label, value in server.items())
    peaks, free = (
        [value for gpu in vram.gpus if (value := getattr(gpu, name)) is not None] for name in ("peak", "headroom")
    )
    parts = [f"peak {gib(max(peaks))} GiB"] if peaks else []
    parts += [f"least free {gib(min(free))} GiB"] if free else []
    parts += [f"{label} {plain(value)}" for label, value in server.items()]
    shown = [key for key in _MEMORY if any(getattr(gpu, key) is not None for gpu in vram.gpus)]
    rows = [[gpu.gpu, *(gib(getattr(gpu, key)) or "-" for key in shown)] for gpu in vram.gpus] if shown else []
    return [
        Note(f"GPU memory: {', '.join(parts)}" if parts else "", depth=Depth.BRIEF),
        facts(sizes, "GPU memory", head=("of its log and metrics", "")),
        Table(
            ["GPU, GiB", *(_MEMORY[key] for key in shown)],
            rows,
            "" if server else "GPU memory",
            depth=Depth.PAGE,
            dash=_UNTOLD,
        ),
    ]


def diagnosis(summary: Summary) -> Section:
    notes = [
        Note(finding.remedy, finding.says, f"{finding.kind}: {_figures(finding.figures)}", "finding")
        for finding in summary.findings
        if finding.kind != FindingKind.CLIENT_BOUND  # that makes the run invalid, which its verdict explains
    ]
    nothing = "" if summary.failed_checks else "Nothing in the figures points to a bottleneck."
    return section("Diagnosis", Notes(notes, numbered=True) if notes else Note(nothing, depth=Depth.PAGE))


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
        [_PHASES.get(name, name), f"{phase.n:,.0f}", ms(phase.mean_ms), *map(_bucket, (phase.p50_ms, phase.p99_ms))]
        for name, phase in view.phases.items()
    ]
    endpoints: list[Row] = [
        [endpoint.url, *map(plain, (endpoint.running, endpoint.waiting, endpoint.finished))]
        for endpoint in view.endpoints
    ]
    how = (
        "From the server's own histograms, which count into buckets: of a percentile only the bucket is known, and the "
        "figure after ≈ is interpolated in it. Means are exact but for the window's edges, where counters are "
        "interpolated between scrapes."
    )
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
        Table(["phase", "n", "mean", "p50, interpolated", "p99, interpolated"], phases, "Its own histograms, ms"),
        Note(how) if phases else None,
        Table(["", "running", "waiting", "finished"], endpoints, "Endpoints", dash=_UNTOLD)
        if len(endpoints) > 1
        else None,
        depth=Depth.PAGE,
    )


def _bucket(percentile: tuple[float | None, ...]) -> TableCell:
    value, low, high = percentile
    if high is None:  # the last bucket has no upper edge to interpolate towards
        return TableCell(f"> {ms(low)}", below="beyond the last bucket")
    return TableCell(f"≈ {ms(value)}", below=f"bucket {ms(low)} to {ms(high)}")


def gpus(summary: Summary) -> Section:
    rows: list[Row] = [
        [
            gpu.gpu, plain(gpu.power_w), plain(gpu.sm_clock_mhz), percent(gpu.utilization),
            *(gib(size) or "-" for size in (gpu.mem_used_bytes, gpu.mem_peak_bytes)), plain(gpu.temperature_max_c),
            *map(percent, (gpu.slowdown_share, gpu.mild_slowdown_share, gpu.power_cap_share)),
            plain(gpu.energy_j),
        ]
        for gpu in (summary.gpu.gpus if summary.gpu else ())
    ]  # fmt: skip
    heads = [
        "GPU", "W", "MHz", "busy", "memory, GiB", "peak, GiB", "°C", "hardware slowdown", "mild slowdown",
        "at power cap", "energy, J",
    ]  # fmt: skip
    how = Note("Busy says that some kernel ran, not how full the GPU was.") if rows else None
    return section("GPUs", how, Table(heads, rows, dash=_UNTOLD), depth=Depth.PAGE)


def _settings(manifest: Manifest) -> Table:
    given = (manifest.spec.get("target") or {}).get("args") or {}
    config = manifest.target.fingerprint.get("config") or {}
    resolved: dict[str, Any] = {}
    for settings in config.values():  # the model's own come first: a drafting model's do not hide them
        resolved = {**settings, **resolved}
    names = [*given, *(name for name in resolved if name not in {key.replace("-", "_") for key in given})]
    rows: list[Row] = [
        [name.replace("_", "-"), str(given.get(name, "")), str(resolved.get(name.replace("-", "_"), "not told"))]
        for name in names
    ]
    heads, title = ["setting", "given", "resolved"], "Settings as given and as the server resolved them"
    return Table(heads, rows, title, words=(0, 1, 2), depth=Depth.PAGE)
