"""Looked at before any load: has this machine what it takes, does the target allow the workload, would figures lie?

identified -> its context limits lengths -> plan -> `check_resources`: descriptors, local ports;
`beyond_calibration`: the busiest second -> `admit`: lengths,
adapters and content fit the target. What nevertheless runs short while load is sent is `client_resources` in
`reports.validity.client`.
"""

import resource
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.host import calibration
from tailgate.harness.targets.base import Identity
from tailgate.loadgen.job import PATHS, meaning_changed
from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.formatting import visible
from tailgate.workloads.plan.plan import Plan
from tailgate.workloads.prompts.content_check import asks_for_grammar, refuse_misleading
from tailgate.workloads.traces.logged_bodies import Bodies

# What a process has open besides its connections: files, sockets to others, its event loop.
_OWN: Final = 32
_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Hardly a server under load is as fast: the requests in flight will be more than this says.
_TOKEN_NS: Final = 5_000_000
TOKENS_PER_S: Final = 50.0  # of one answer, for its chunks; how fast the server really is nobody knows before
_SHOWN: Final = 8  # names, before the rest is only counted
_HOLDS: Final = {"chat": "messages", "completions": "prompt"}


def check_resources(spec: RunSpec, plan: Plan) -> list[str]:
    """Refuse more users than there can be connections; notices for the person about other requests are returned."""
    if spec.workers is not None:  # it is their machines that count
        return []
    each = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # injectors raise the soft limit to this
    descriptors = spec.injector_count * max(each - _OWN, 0)
    limits = [
        (descriptors, f"the limit of open files is {each:,}", "Raise it (ulimit -n), or use more --injectors."),
        (
            _local_ports() * max(len(spec.target.all_urls), 1),
            "there are too few local ports",
            f"Widen {_PORTS}, or name more target addresses.",
        ),
    ]
    room, why, remedy = min(limits)
    users = spec.workload.most_users
    if users > room:
        raise UserError(
            f"{users:,} users need as many connections, and {room:,} can be open: {why}",
            where="workload.users", remedy=remedy,
        )  # fmt: skip
    if plan.loop == "open" and (many := at_once(plan)) > room:
        return [
            f"even at {_TOKEN_NS / 1e6:g} ms a token {many:,} requests are in flight at once, and {room:,} connections "
            f"can be open: {why}. {remedy}"
        ]
    return []


def at_once(plan: Plan) -> int:
    """The largest number of a plan's requests in flight, if a server made a token every `_TOKEN_NS`."""
    at = plan.table["at_ns"].to_numpy().astype(np.float64)
    timed = np.isfinite(at)
    begin = np.sort(at[timed])
    end = np.sort(at[timed] + plan.table["output_tokens"].to_numpy()[timed] * _TOKEN_NS)
    ended = np.searchsorted(end, begin, side="right")
    return int((np.arange(1, len(begin) + 1) - ended).max(initial=0))


def beyond_calibration(spec: RunSpec, plan: Plan) -> str | None:
    """A warning, where this machine was calibrated with as many injectors and the plan is near what it can measure.

    None for a closed loop, whose rate the server decides, and where other machines send.
    """
    if plan.loop == "closed" or spec.workers is not None or not plan.table.num_rows:
        return None
    injectors = spec.injector_count
    requests, chunks = busiest(plan, injectors)
    return calibration.warning(requests, chunks, injectors)


def busiest(plan: Plan, injectors: int) -> tuple[float, float]:
    """(requests/s, chunks/s) of the busiest injector's busiest second, times the number of injectors.

    Later turns have no time of their own: with them the mean over the plan's length, if that is higher.
    """
    at_s = plan.table["at_ns"].to_numpy().astype(np.float64) / 1e9  # null: NaN
    mine = plan.table["session"].to_numpy() % injectors
    tokens = plan.table["output_tokens"].to_numpy().astype(np.float64)
    requests = chunks = 0.0
    for number in range(injectors):
        rows = (mine == number) & np.isfinite(at_s)
        if rows.any():
            requests = max(requests, float(np.bincount(at_s[rows].astype(np.int64)).max()))
            chunks = max(chunks, _most_chunks(at_s[rows], tokens[rows]))
    length_s = max(plan.span_s, 1.0)
    return max(requests * injectors, len(at_s) / length_s), max(chunks * injectors, float(tokens.sum()) / length_s)


def _most_chunks(begin_s: Floats, tokens: Floats) -> float:
    """Chunks of the busiest second where each answer gives TOKENS_PER_S from its beginning on."""
    end_s = begin_s + tokens / TOKENS_PER_S
    edges = np.arange(np.ceil(end_s.max()) + 1)
    until = TOKENS_PER_S * (_elapsed(edges, begin_s) - _elapsed(edges, end_s))
    return float(np.diff(until).max())


def _elapsed(now_s: Floats, since_s: Floats) -> Floats:
    """At each time, how long ago those of ``since_s`` that lie before it were, in sum."""
    since = np.sort(since_s)
    count = np.searchsorted(since, now_s, side="right")
    return np.asarray(now_s * count - np.concatenate([[0.0], np.cumsum(since)])[count])


def _local_ports() -> int:
    try:
        low, high = map(int, _PORTS.read_text().split())
    except (OSError, ValueError):
        return 1 << 16
    return high - low + 1


def needs_context(spec: RunSpec) -> bool:
    """Whether the plan depends on the target's context: lengths are to be fitted to it, and the spec names none."""
    return spec.workload.max_context is None and spec.workload.over_context != "error"


def with_context(spec: RunSpec, identity: Identity) -> RunSpec:
    """The spec with the target's context as `workload.max_context`, where that is left open and known."""
    if not needs_context(spec) or identity.max_model_len is None:
        return spec
    workload = spec.workload.model_copy(update={"max_context": identity.max_model_len})
    return spec.model_copy(update={"workload": workload})


def admit(spec: RunSpec, plan: Plan, identity: Identity) -> list[str]:
    """Refuse what this target can't serve or what would mislead on it; notices for the person are returned."""
    check_lengths(plan, identity)
    adapters(spec, identity)
    notices: list[str] = []
    grammar = False
    if spec.workload.content.kind == "replay":
        assert spec.workload.trace is not None
        bodies = check_bodies(spec.workload.trace.file, plan, spec.target.endpoint)
        grammar = bodies.grammar
        if bodies.repeated:
            many = f"{bodies.repeated:,} of {plan.table.num_rows:,} requests"
            notices.append(f"{many} have the same body as an earlier one: a prefix cache will find them")
        if bodies.left_out:
            names = ", ".join(visible(name)[:40] for name in bodies.left_out[:_SHOWN])
            more = len(bodies.left_out) - _SHOWN
            names += f" and {more} more" if more > 0 else ""
            notices.append(f"not sent, because it is no field of a request or says who asked: {names}")
    check_content(spec, identity, grammar=grammar)
    return notices


def check_lengths(plan: Plan, identity: Identity) -> None:
    """Lengths beyond the model's context are an error before any load."""
    import pyarrow.compute as pc

    limit = identity.max_model_len
    if limit is None or plan.table.num_rows == 0:
        return
    total = pc.add(plan.table["prompt_tokens"], plan.table["output_tokens"])
    beyond = pc.sum(pc.greater(total, limit)).as_py()
    if beyond:
        raise UserError(
            f"{beyond} of {plan.table.num_rows} requests are longer than the model's context of {limit:,} tokens"
            f" (the longest: {pc.max(total).as_py():,})",
            where="workload",
            remedy=f"Set max_context: {limit} and over_context: clip, scale or drop (--max-context, --over-context).",
        )


def adapters(spec: RunSpec, identity: Identity) -> dict[str, str]:
    """LoRA adapter by class, for the classes that name one."""
    by_class = {name: kind.adapter for name, kind in spec.workload.classes.items() if kind.adapter is not None}
    for name, adapter in by_class.items():
        if identity.listed and not identity.serves(adapter):
            raise UserError(
                f"the target does not serve the adapter {adapter!r}",
                where=f"workload.classes.{name}.adapter",
                remedy=f"It serves: {', '.join(identity.models)} (vLLM: --enable-lora --lora-modules NAME=PATH).",
            )
    return by_class


def check_content(spec: RunSpec, identity: Identity, *, grammar: bool = False) -> None:
    """Refuse content that would mislead on this target; `grammar`: a replayed body asks for structured output."""
    text = spec.target.endpoint == "chat" or spec.target.prompt == "text"
    if spec.workload.content.kind == "random" and text:
        raise UserError(
            "random tokens can only be sent as token ids",
            where="workload.content",
            remedy="Use endpoint: completions with prompt: ids, or content: corpus",
        )
    refuse_misleading(
        spec.workload,
        speculative=decodes_speculatively(spec, identity),
        grammar=grammar or asks_for_grammar(spec.extra),
        forced_output=spec.output == "forced",
    )


def decodes_speculatively(spec: RunSpec, identity: Identity) -> bool:
    config = identity.fingerprint.get("config") or {}
    args = {key.replace("_", "-"): value for key, value in spec.target.args.items()}
    return bool(config.get("speculative_config") or args.get("speculative-config"))


@dataclass(frozen=True)
class LoggedBodies:
    """What the planned bodies are like: how many different ones, rows that repeat one, structured output asked for.

    `left_out` are the names of what their records hold besides, the most frequent first.
    """

    bodies: int
    repeated: int
    grammar: bool
    left_out: list[str]


def check_bodies(file: Path, plan: Plan, endpoint: str) -> LoggedBodies:
    """Look at every planned body: a line without one, of another endpoint, or for several answers is refused.

    A plan row's `content_seed` is a line of the log.
    """
    bodies = Bodies(file)
    lines = np.unique(plan.table["content_seed"].to_numpy())
    grammar = False
    left_out: Counter[str] = Counter()
    for line in lines.tolist():
        body, names = bodies.taken_apart(line)
        left_out.update(names)
        _check_body(body, endpoint, f"{file}, line {line}")
        grammar = grammar or asks_for_grammar(body)
    by_count = [name for name, _ in left_out.most_common()]
    return LoggedBodies(len(lines), plan.table.num_rows - len(lines), grammar, by_count)


def _check_body(body: Mapping[str, Any], endpoint: str, where: str) -> None:
    if _HOLDS[endpoint] not in body:
        other = next((name for name, key in _HOLDS.items() if key in body), None)
        raise UserError(
            f"the body holds no {_HOLDS[endpoint]}, which {PATHS[endpoint]} needs",
            where=where,
            remedy=f"Set target.endpoint: {other} (--endpoint)" if other else "Log requests to completions or chat",
        )
    if why := meaning_changed(body):
        raise UserError(why, where=where, remedy="Leave such requests out of the log")
