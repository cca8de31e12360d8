"""The report's section on the deployment: cold start, GPU memory, flags as given and as resolved, the end.

Takes the summary and the manifest and returns HTML; empty where nothing is known.
"""

from typing import Any, Final

from tailgate.reports.documents.html_page import section, table, text
from tailgate.reports.rundir.manifest import Manifest

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


def deployment(summary: dict[str, Any], manifest: Manifest) -> str:
    """How it came up, what it holds, what it was told and what it made of it."""
    life, vram = summary["life"], summary["vram"]
    body = (_start(life) if life else "") + (_vram(vram) if vram else "") + _flags(manifest)
    return section("The deployment", body) if body else ""


def cold_start_words(life: dict[str, Any]) -> str:
    """One line."""
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in life["phases"].items())
    return f"cold start {life['ready_s']:.1f} s ({phases})"


def vram_words(vram: dict[str, Any]) -> str:
    """One line for all GPUs; empty where none was seen."""
    peaks = [one["peak"] for one in vram["gpus"] if one["peak"] is not None]
    rooms = [one["headroom"] for one in vram["gpus"] if one["headroom"] is not None]
    parts = [f"peak {_gib(max(peaks))} GiB"] if peaks else []
    parts += [f"least free {_gib(min(rooms))} GiB"] if rooms else []
    parts += [f"{label} {vram['server'][key]:,.4g}" for key, label in _SERVER.items() if key in vram["server"]]
    return f"GPU memory: {', '.join(parts)}" if parts else ""


def _start(life: dict[str, Any]) -> str:
    rows = [[name, f"{seconds:.2f}"] for name, seconds in life["phases"].items()]
    rows.append(["from spawn to ready", f"{life['ready_s']:.2f}"])
    rows += [[f"its log: {name}", f"{value:,.4g}"] for name, value in life["details"].items()]
    return "<h3>Cold start, seconds</h3>" + table(["phase", "s"], rows) + f"<p>{text(_end(life))}</p>"


def _end(life: dict[str, Any]) -> str:
    if life["stop_s"] is None:
        return "It was not stopped by this run."
    how = "had to be killed" if life["killed"] else "ended by SIGTERM"
    said = f"Its end: it {how} within {life['stop_s']:.1f} s (exit code {life['exit_code']})"
    if life["port_free"] is False:
        said += "; its port did not come back"
    if life["memory_back_s"] is not None:
        said += f"; its GPU memory was back {life['memory_back_s']:.1f} s later"
    return f"{said}."


def _vram(vram: dict[str, Any]) -> str:
    server = [[label, f"{vram['server'][key]:,.6g}"] for key, label in _SERVER.items() if key in vram["server"]]
    shown = [key for key in _MEMORY if any(one[key] is not None for one in vram["gpus"])]
    body = "<h3>GPU memory</h3>" + (table(["of its log and metrics", ""], server) if server else "")
    if shown:
        rows = [[one["gpu"], *(_gib(one[key]) for key in shown)] for one in vram["gpus"]]
        body += table(["GPU, GiB", *(_MEMORY[key] for key in shown)], rows)
    return body


def _gib(value: float | None) -> str:
    return "" if value is None else f"{value / 2**30:,.1f}"


def _flags(manifest: Manifest) -> str:
    """What each flag was given as, and what the server says it runs with."""
    given = (manifest.spec.get("target") or {}).get("args") or {}
    config = manifest.target.fingerprint.get("config") or {}
    resolved: dict[str, Any] = {}
    for settings in config.values():  # the model's own come first: a drafting model's do not hide them
        resolved = {**settings, **resolved}
    names = [*given, *(name for name in resolved if name not in {key.replace("-", "_") for key in given})]
    rows = [
        [name.replace("_", "-"), str(given.get(name, "")), str(resolved.get(name.replace("-", "_"), "not told"))]
        for name in names
    ]
    if not rows:
        return ""
    heads = ["setting", "given", "resolved"]
    return "<h3>Settings as given and as the server resolved them</h3>" + table(heads, rows, (0, 1, 2))
