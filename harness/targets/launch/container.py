"""Which container a server runs in: ours, or the one that a `docker run` of the spec started.

What was run (kind, image) belongs into the fingerprint; which one it was (pod, container's id) is told beside it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tailgate.harness.host.child_process import output_of

_RUNTIMES: Final = ("docker", "podman", "nerdctl")
_PATIENCE_S: Final = 10.0
_KINDS: Final = {".dockerenv": "docker", "run/.containerenv": "podman"}


def own_container(environment: Mapping[str, str], root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """(what kind of container this machine is, which one); empty if it is none."""
    if "KUBERNETES_SERVICE_HOST" in environment:
        which = {"pod": environment.get("HOSTNAME", "")}
        namespace = root / "var/run/secrets/kubernetes.io/serviceaccount/namespace"
        if namespace.exists():
            which["namespace"] = namespace.read_text().strip()
        return {"kind": "kubernetes"}, which
    for mark, kind in _KINDS.items():
        if (root / mark).exists():
            return {"kind": kind}, {}
    return {}, {}


async def started_container(command: Sequence[str], port: int | None) -> tuple[dict[str, str], dict[str, str]]:
    """(image of the container that `docker run ...` started, its id); empty if it is no such command, or not found.

    Found by its `--name`, else by the port that it publishes.
    """
    if len(command) < 2 or Path(command[0]).name not in _RUNTIMES or command[1] not in ("run", "start", "container"):
        return {}, {}
    runtime = command[0]
    wanted = _name(command)
    if wanted is None and port is not None:
        words = (runtime, "ps", "--no-trunc", "--quiet", "--filter", f"publish={port}")
        listed = await output_of(*words, within_s=_PATIENCE_S) or ""
        wanted = next(iter(listed.split()), None)
    if wanted is None:
        return {}, {}
    facts = _first_object(await output_of(runtime, "inspect", wanted, within_s=_PATIENCE_S) or "")
    if not facts:
        return {}, {}
    image = facts.get("Config", {}).get("Image") or facts.get("ImageName", "")
    what = {"kind": Path(runtime).name, "image": str(image), "image_digest": str(facts.get("Image", ""))}
    return what, {"container_id": str(facts.get("Id", ""))}


def _name(command: Sequence[str]) -> str | None:
    for number, word in enumerate(command):
        if word == "--name" and number + 1 < len(command):
            return command[number + 1]
        if word.startswith("--name="):
            return word.partition("=")[2]
    return None


def _first_object(text: str) -> dict[str, Any]:
    try:
        objects = json.loads(text)
    except ValueError:
        return {}
    return objects[0] if isinstance(objects, list) and objects and isinstance(objects[0], dict) else {}
