"""The deployment: cold start, GPU memory, settings as given and as resolved, its end."""

from typing import Any, Final

from tailgate.reports.documents.model import Block, Depth, Note, Row, Section, Table, facts, section
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.model import Summary
from tailgate.reports.telemetry.deployment import DeploymentMemory, Lifecycle
from tailgate.workloads.common.formatting import gib

_SERVER: Final = {
    "model_gib": "weights, GiB",
    "graph_gib": "CUDA graphs, GiB",
    "kv_cache_gib": "KV cache, GiB",
    "kv_cache_tokens": "KV cache, tokens",
    "kv_blocks": "KV blocks",
    "kv_block_tokens": "tokens per block",
    "kv_bytes_per_token": "KV bytes per token",
}
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
        *((f"its log: {name}", f"{value:,.4g}") for name, value in life.details.items()),
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
    peaks, free = (
        [value for one in vram.gpus if (value := getattr(one, name)) is not None] for name in ("peak", "headroom")
    )
    parts = [f"peak {gib(max(peaks))} GiB"] if peaks else []
    parts += [f"least free {gib(min(free))} GiB"] if free else []
    parts += [f"{label} {value:,.4g}" for label, value in server.items()]
    shown = [key for key in _MEMORY if any(getattr(one, key) is not None for one in vram.gpus)]
    rows = [[one.gpu, *(gib(getattr(one, key)) for key in shown)] for one in vram.gpus] if shown else []
    return [
        Note(f"GPU memory: {', '.join(parts)}" if parts else "", depth=Depth.BRIEF),
        facts(
            ((label, f"{value:,.6g}") for label, value in server.items()),
            "GPU memory", head=("of its log and metrics", ""),
        ),
        Table(["GPU, GiB", *(_MEMORY[key] for key in shown)], rows, "" if server else "GPU memory", depth=Depth.PAGE),
    ]  # fmt: skip


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
