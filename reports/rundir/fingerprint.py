"""What differed between deployments: nested facts flattened to `a.b.c`, and the keys whose values differ.

Facts that change from launch to launch without meaning anything (ports, process numbers, times, the pod's name) are
left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tailgate.reports.rundir.manifest import Manifest

_VOLATILE: Final = (
    "pid", "port", "url", "urls", "host", "log", "started", "time", "timestamp", "uptime", "created", "id", "uuid",
    "salt", "seed", "out", "path",
)  # fmt: skip
# Where a container ran this time, not what ran in it.
_PLACES: Final = ("fingerprint.container.pod", "fingerprint.container.namespace")


def facts(manifest: Manifest) -> dict[str, str]:
    """Everything that tells deployments apart: fingerprint, launch arguments, GPUs, versions, client host."""
    spec, target = manifest.spec, manifest.target
    tree: dict[str, Any] = {
        "target": {"kind": target.kind, "model": target.model, "endpoint": target.endpoint, "server": target.server},
        "requests": target.requests,
        "version": target.version,
        "fingerprint": target.fingerprint,
        "launch": {key: (spec.get("target") or {}).get(key) for key in ("args", "env", "sim", "command")},
        "gpus": spec.get("gpus"),
        "cache": manifest.cache,
        "isolation": manifest.isolation,
        "client": {
            "stamp": manifest.stamp,
            "injectors": manifest.injectors,
            **{key: manifest.host.get(key) for key in ("cpu", "kernel")},
        },
        "versions": manifest.versions,
    }
    return {key: value for key, value in _flat(tree, "") if key not in _PLACES}


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            if str(name).lower() not in _VOLATILE:
                yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for place, item in enumerate(value):
            yield from _flat(item, f"{key}[{place}]")
    elif value not in (None, "", [], ()):
        yield key, str(value)


def differences(sides: Mapping[str, Sequence[Manifest]]) -> list[tuple[str, dict[str, str]]]:
    """(key, value by label) of every fact that isn't the same everywhere; values of replicates are joined."""
    facts_by_label = {label: [facts(manifest) for manifest in manifests] for label, manifests in sides.items()}
    keys = sorted({key for runs in facts_by_label.values() for run in runs for key in run})
    result = []
    for key in keys:
        values = {label: sorted({run.get(key, "-") for run in runs}) for label, runs in facts_by_label.items()}
        if len({value for side in values.values() for value in side}) > 1:
            result.append((key, {label: " | ".join(side) for label, side in values.items()}))
    return result


def gpu_count(manifest: Manifest) -> int | None:
    """GPUs of the deployment: as stated, else as seen, else as an embedded engine was configured; None if unknown."""
    stated, seen = (manifest.spec.get("gpus") or {}).get("count"), manifest.target.fingerprint.get("gpus") or []
    if stated or seen:
        return int(stated or len(seen))
    if manifest.target.kind == "sim":
        arguments = (manifest.spec.get("target") or {}).get("args") or {}
        return int(arguments.get("tensor-parallel-size") or arguments.get("tensor_parallel_size") or 1)
    return 1 if (manifest.spec.get("gpus") or {}).get("type") else None


def gpus_in_words(manifest: Manifest) -> str:
    """Count and kind of the GPUs, e.g. `4 x NVIDIA H100`: those that were seen, else those that were stated."""
    stated, seen = manifest.spec.get("gpus") or {}, manifest.target.fingerprint.get("gpus") or []
    kinds = sorted({str(gpu.get("name") or "") for gpu in seen}) if seen else [str(stated.get("type") or "")]
    count = gpu_count(manifest)
    names = " and ".join(kind for kind in kinds if kind)
    return f"{count} x {names or '(unknown kind)'}" if count else (names or "(not known)")
