"""A log's own bodies, looked through before they are sent: does the endpoint take them, will our figures hold?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import Plan
from tailgate.workloads.prompts.content_check import asks_for_grammar
from tailgate.workloads.traces.logged_bodies import Bodies

_HOLDS: Final = {"chat": "messages", "completions": "prompt"}


@dataclass(frozen=True)
class LoggedBodies:
    """What the planned bodies are like: how many different ones, rows that repeat one, structured output asked for."""

    bodies: int
    repeated: int
    grammar: bool


def check_bodies(file: Path, plan: Plan, endpoint: str) -> LoggedBodies:
    """Look at every planned body.

    Args:
        file: the log; a plan row's `content_seed` is a line of it.
        plan: what is to be sent.
        endpoint: completions | chat.

    Raises:
        UserError: a line without a body, one that is of another endpoint, or one that asks for several answers.
    """
    bodies = Bodies(file)
    lines = np.unique(plan.table["content_seed"].to_numpy())
    grammar = False
    for line in lines.tolist():
        body = bodies.body(line)
        _check(body, endpoint, f"{file}, line {line}")
        grammar = grammar or asks_for_grammar(body)
    return LoggedBodies(len(lines), plan.table.num_rows - len(lines), grammar)


def _check(body: Mapping[str, Any], endpoint: str, where: str) -> None:
    if _HOLDS[endpoint] not in body:
        other = next((name for name, key in _HOLDS.items() if key in body), None)
        raise UserError(
            f"the body holds no {_HOLDS[endpoint]}, which /v1/{endpoint.replace('chat', 'chat/completions')} needs",
            where=where,
            remedy=f"Set target.endpoint: {other} (--endpoint)" if other else "Log requests to completions or chat",
        )
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)
    if several or any((body.get(name) or 1) != 1 for name in ("n", "best_of")):
        raise UserError(
            "the body asks for several answers at once, whose tokens can't be told apart",
            where=where,
            remedy="Leave such requests out of the log",
        )
