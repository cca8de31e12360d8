"""Refuses content that would make the figures of a run misleading."""

from collections.abc import Mapping
from typing import Any, Final

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import WorkloadSpec

# Fields of a body that constrain the answer's text: OpenAI's, and vLLM's own (the `guided_` ones before 0.12).
_GRAMMARS: Final = (
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_whitespace_pattern",
)


def asks_for_grammar(body: Mapping[str, Any]) -> bool:
    """Whether a request body asks for structured output: a response format, a grammar, a tool that must be called."""
    format = body.get("response_format")
    if isinstance(format, Mapping) and format.get("type") not in (None, "text"):
        return True
    if any(body.get(name) for name in _GRAMMARS):
        return True
    choice = body.get("tool_choice")
    return choice == "required" or isinstance(choice, Mapping)


def refuse_misleading(spec: WorkloadSpec, *, speculative: bool, grammar: bool, forced_output: bool) -> None:
    """Refuse random content where the target decodes speculatively, and a forced output length with a grammar.

    With `grammar` requests ask for structured output (`response_format`, guided decoding); `forced_output` says that
    the output length is forced (`ignore_eos`, `min_tokens`).
    """
    if speculative and spec.content.kind == "random":
        raise UserError(
            "no draft model can guess random tokens: with speculative decoding their acceptance would be near zero",
            where="workload.content",
            remedy="Use content: corpus, or your own text",
        )
    if grammar and forced_output:
        raise UserError(
            "the output length is forced, but a complete answer in a grammar can't be followed by more tokens",
            where="output",
            remedy="Use output: natural (--natural-output)",
        )
