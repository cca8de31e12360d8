"""What makes a deployment this one and no other: settings as the server resolved them, versions, where it runs.

Two launches of one spec have equal fingerprints: what a launch draws anew (ports, process ids, the exact size
of the cache) is left out. `reports.rundir.fingerprint` compares them.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from tailgate.harness.targets.base import Identity, Life
from tailgate.harness.targets.inspect.probe import get_json
from tailgate.harness.targets.launch.container import own_container
from tailgate.harness.telemetry.metrics_page import read_page

# Section of vLLM's configuration -> the settings that change how it serves.
_SETTINGS: Final = {
    "model_config": (
        "model", "revision", "dtype", "quantization", "max_model_len", "enforce_eager", "seed", "logprobs_mode",
    ),
    "cache_config": (
        "block_size", "cache_dtype", "gpu_memory_utilization", "enable_prefix_caching", "kv_cache_memory_bytes",
        "num_gpu_blocks_override", "kv_offloading_size", "sliding_window",
    ),
    "scheduler_config": (
        "max_num_seqs", "max_num_batched_tokens", "max_num_queued_reqs", "max_num_queued_tokens", "policy",
        "enable_chunked_prefill", "long_prefill_token_threshold", "async_scheduling", "stream_interval",
    ),
    "parallel_config": (
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel",
        "decode_context_parallel_size", "all2all_backend",
    ),
    "load_config": ("load_format",),
    "lora_config": ("max_loras", "max_lora_rank"),
    "attention_config": ("backend",),
    "compilation_config": ("mode", "level", "cudagraph_mode"),
    "device_config": ("device",),
    "speculative_config": ("method", "model", "num_speculative_tokens"),
    "simulation": ("preset", "jitter", "curves", "overhead_s", "per_sequence_s"),
}  # fmt: skip
# Of the figures in vLLM's log, those about memory.
_MEMORY: Final = ("model_gib", "graph_gib", "kv_cache_gib", "kv_cache_tokens")
# Labels of vllm:cache_config_info that mean the same, for servers without /server_info.
_FROM_METRICS: Final = ("block_size", "cache_dtype", "gpu_memory_utilization", "enable_prefix_caching")


@dataclass(frozen=True)
class Fingerprint:
    """`facts` tell deployments apart; `instance` tells which one it was (pod, container), new at each launch."""

    facts: dict[str, Any]
    instance: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


async def fingerprint(http: aiohttp.ClientSession, identity: Identity, life: Life | None) -> Fingerprint:
    """Of every URL's server; where they are not alike, `replicas_differ` says in what. `life`: of one of ours."""
    facts: dict[str, Any] = {"served_model": identity.model, "replicas": len(identity.urls)}
    if identity.max_model_len is not None:
        facts["max_model_len"] = identity.max_model_len
    known = {identity.urls[0]: identity.version}
    first, *others = await asyncio.gather(*(_of_server(http, url, identity, known.get(url)) for url in identity.urls))
    facts |= {key: value for key, value in first.items() if key != "version"}
    keys = {key for server in (first, *others) for key in server}
    unlike = sorted(key for key in keys if any(server.get(key) != first.get(key) for server in others))
    notices = []
    if unlike:
        servers = [first, *others]
        facts["replicas_differ"] = {key: [server.get(key, "not told") for server in servers] for key in unlike}
        differences = ", ".join(_difference(key, servers) for key in unlike)
        notices.append(f"the {len(identity.urls)} endpoints differ: {differences}")
    instance: dict[str, str] = {}
    if life is not None:
        # A container that our command started, else the one that we and so the server are in.
        what, instance = (life.container, life.instance) if life.container else own_container(os.environ, Path("/"))
        if what:
            facts["container"] = what
    return Fingerprint(facts, instance, notices)


async def _of_server(http: aiohttp.ClientSession, url: str, identity: Identity, version: str | None) -> dict[str, Any]:
    """`version`: where it was asked already."""
    facts: dict[str, Any] = {}
    asked = [get_json(http, f"{url}/server_info?config_format=json")]
    if version is None:
        asked.append(get_json(http, f"{url}/version"))
    info, *others = await asyncio.gather(*asked)
    for told in others:
        version = str(told.get("version") or "") if isinstance(told, dict) else ""
    if version:
        facts["version"] = version
    config = info.get("vllm_config") if isinstance(info, dict) else None
    if isinstance(config, dict):
        facts["config"] = resolved_settings(config)
        facts["config_source"] = "/server_info"
    elif identity.dialect == "vllm":
        labels, speculative = await _from_metrics(http, url)
        if labels:
            facts["config"] = {"cache_config": {k: labels[k] for k in _FROM_METRICS if k in labels}}
            if speculative:
                facts["config"]["speculative_config"] = {"method": "not told"}
            facts["config_source"] = "/metrics (start vLLM with VLLM_SERVER_DEV_MODE=1 for all of it)"
    return facts


def _difference(key: str, servers: Sequence[Mapping[str, Any]]) -> str:
    """Which values differ, or which settings, in a few words."""
    values = [server.get(key, "not told") for server in servers]
    if key != "config":
        return f"{key} {' / '.join(dict.fromkeys(map(str, values)))}"
    settings = [
        {f"{section}.{name}": value for section, inner in server.items() for name, value in inner.items()}
        for server in values
        if isinstance(server, dict)
    ]
    every = {name for server in settings for name in server}
    names = sorted(name for name in every if any(server.get(name) != settings[0].get(name) for server in settings))
    return f"settings {', '.join(names)}" if names else "settings told by some only"


async def memory(http: aiohttp.ClientSession, identity: Identity, life: Life | None) -> dict[str, float]:
    """Where the GPU memory goes, as far as the server tells: weights, graphs, the KV cache and its blocks.

    Sizes in GiB per GPU are the log's (only of a server that we started); blocks are `/metrics`'. What was used,
    free and reserved in the run is in `gpu.parquet`.
    """
    sizes: dict[str, float] = {}
    if life is not None:
        sizes = {name: life.details[name] for name in _MEMORY if name in life.details}
    labels: dict[str, str] = {}
    if identity.dialect == "vllm":
        labels, _ = await _from_metrics(http, identity.urls[0])
    for label, name in (("num_gpu_blocks", "kv_blocks"), ("block_size", "kv_block_tokens")):
        if labels.get(label, "").isdigit():
            sizes[name] = float(labels[label])
    if "kv_blocks" in sizes and "kv_block_tokens" in sizes:
        sizes.setdefault("kv_cache_tokens", sizes["kv_blocks"] * sizes["kv_block_tokens"])
    if "kv_cache_gib" in sizes and sizes.get("kv_cache_tokens"):
        sizes["kv_bytes_per_token"] = sizes["kv_cache_gib"] * 2**30 / sizes["kv_cache_tokens"]
    return sizes


def resolved_settings(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings that matter, of vLLM's whole resolved configuration."""
    settings: dict[str, dict[str, Any]] = {}
    for section, names in _SETTINGS.items():
        given = config.get(section)
        if isinstance(given, Mapping):
            chosen = {name: given[name] for name in names if given.get(name) not in (None, "", {}, [])}
            if chosen:
                settings[section] = chosen
    return settings


async def _from_metrics(http: aiohttp.ClientSession, url: str) -> tuple[dict[str, str], bool]:
    """The cache's configuration, and whether there are counters of speculative decoding: vLLM has them only then."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        text = await read_page(http, f"{url}/metrics")
        line = next((line for line in text.splitlines() if line.startswith("vllm:cache_config_info{")), "")
        families = list(text_string_to_metric_families(line + "\n"))
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return {}, False
    labels = next((dict(sample.labels) for family in families for sample in family.samples), {})
    return labels, "vllm:spec_decode_num_drafts" in text
