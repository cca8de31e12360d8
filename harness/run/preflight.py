"""What a target allows of a workload, and what would make its figures lie: looked at before any load.

identified -> its context limits lengths -> plan -> `admit`: lengths, adapters and content fit the target
"""

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.run.logged_bodies import check_bodies
from tailgate.harness.targets.base import Identity
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import Plan
from tailgate.workloads.prompts.content_check import asks_for_grammar, refuse_misleading


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
    """Refuse what this target can't serve or what would mislead on it; notices for the person are returned.

    Raises:
        UserError: with the reason.
    """
    check_lengths(plan, identity)
    adapters(spec, identity)
    notices: list[str] = []
    grammar = False
    if spec.workload.content.kind == "replay":
        assert spec.workload.trace is not None
        found = check_bodies(spec.workload.trace.file, plan, spec.target.endpoint)
        grammar = found.grammar
        if found.repeated:
            many = f"{found.repeated:,} of {plan.table.num_rows:,} requests"
            notices.append(f"{many} repeat a body of the log that was sent before: a prefix cache finds them")
    check_content(spec, identity, grammar=grammar)
    return notices


def check_lengths(plan: Plan, identity: Identity) -> None:
    """Lengths beyond the model's context are an error before any load.

    Raises:
        UserError: how many there are, and what can be done with them.
    """
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
    """LoRA adapter by class, for the classes that name one.

    Raises:
        UserError: the target serves no such adapter.
    """
    found = {name: kind.adapter for name, kind in spec.workload.classes.items() if kind.adapter is not None}
    for name, adapter in found.items():
        if adapter not in identity.models:
            raise UserError(
                f"the target does not serve the adapter {adapter!r}",
                where=f"workload.classes.{name}.adapter",
                remedy=f"It serves: {', '.join(identity.models)} (vLLM: --enable-lora --lora-modules NAME=PATH).",
            )
    return found


def check_content(spec: RunSpec, identity: Identity, *, grammar: bool = False) -> None:
    """Refuse content that would mislead on this target.

    Args:
        spec: what is sent; its `extra` fields may ask for structured output.
        identity: with its fingerprint, which tells of speculative decoding.
        grammar: whether a replayed body asks for structured output.

    Raises:
        UserError: with the reason.
    """
    if spec.workload.content.kind == "random" and (spec.target.endpoint == "chat" or spec.target.prompt == "text"):
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
    """What the resolved configuration says; of a server that we launch, also what it was told."""
    config = identity.fingerprint.get("config") or {}
    told = {key.replace("_", "-"): value for key, value in spec.target.args.items()}
    return bool(config.get("speculative_config") or told.get("speculative-config"))
