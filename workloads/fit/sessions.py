"""Conversations in a log: turns, pauses between turns, and what each turn adds to the history."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from tailgate.workloads.common.arrays import Ints, Mask
from tailgate.workloads.fit.goodness_of_fit import FittedValue
from tailgate.workloads.fit.lengths import expression_of
from tailgate.workloads.fit.think_times import Turns, estimates, follow_ups
from tailgate.workloads.table.columns import Columns

LEAST_FOLLOW_UPS: Final = 50
_RESENT: Final = 0.6
_SAMPLE: Final = 20_000


@dataclass(frozen=True)
class SessionFit:
    """The `sessions` of a profile, with intervals of its figures; `first` marks the rows that begin a session."""

    spec: dict[str, Any]
    first: Mask
    turns: FittedValue
    think_s: FittedValue
    notes: tuple[str, ...] = field(default=())


def fit_sessions(columns: Columns, tick_s: float = 1e-9) -> SessionFit | None:
    """The sessions of a log in order of time; None where hardly any request follows another within the log's reach.

    Pauses are measured from one request's time to the next, so the profile has them `by the clock`.
    """
    order = np.lexsort((columns.turn, columns.session))
    session, turn = columns.session[order], columns.turn[order]
    prompt, output, at_ns = columns.prompt_tokens[order], columns.output_tokens[order], columns.at_ns[order]
    follows = np.flatnonzero(turn > 0)
    if len(follows) < LEAST_FOLLOW_UPS:
        return None
    turns = _turns_of(session, turn, at_ns, follows).within_reach()
    if np.isfinite(turns.pause_s).sum() < LEAST_FOLLOW_UPS:
        return None
    law = follow_ups(turns)
    of_turns, of_pauses = estimates(turns, law, tick_s)
    pauses, counts = law.sample(_SAMPLE)
    history = prompt[follows - 1] + output[follows - 1]
    resent = float((prompt[follows] >= history).mean()) >= _RESENT
    history = history if resent else np.zeros(len(follows), np.int64)
    added = np.maximum(prompt[follows] - history, 1)
    spec: dict[str, Any] = {
        "turns": _turns(counts),
        "think": expression_of(pauses, logarithmic=True),
        "new_tokens": expression_of(added),
        "pace": "clock",
        "max_turns": int(counts.max()),
    }
    notes = ["sessions that began before the log count from their first request in it"]
    if not of_turns.known:
        notes.append("the log is too short for its pauses, or has too few sessions: turns and pauses have no interval")
    if not resent:
        spec["history"] = "none"
        notes.append("most prompts don't hold what was said before: histories are not re-sent")
    return SessionFit(spec, columns.turn == 0, of_turns, of_pauses, tuple(notes))


def _turns_of(session: Ints, turn: Ints, at_ns: Ints, follows: Ints) -> Turns:
    pause_s = np.full(len(turn), np.inf)
    pause_s[follows - 1] = np.maximum((at_ns[follows] - at_ns[follows - 1]) / 1e9, 1e-3)
    left_s = np.maximum((at_ns.max() - at_ns) / 1e9, 1e-3)
    return Turns(np.unique(session, return_inverse=True)[1], turn, left_s, pause_s)


def infer_sessions(columns: Columns, block_tokens: int, common: int) -> Columns:
    """Conversations inferred from prefix blocks: a request continues the latest one whose full blocks it repeats.

    The first `common` blocks, a system prompt, don't count. Where two requests continue the same one, the second begins
    a session of its own.
    """
    if columns.prefix_blocks is None:
        return columns
    lists = columns.prefix_blocks.to_pylist()
    session, turn = np.arange(len(lists)), np.zeros(len(lists), np.int64)
    ends: dict[int, int] = {}
    for row, blocks in enumerate(lists):
        full = min(int(columns.prompt_tokens[row]) // block_tokens, len(blocks))
        for place in range(full, common, -1):
            # A block's id stands for all before it, so the last full one stands for the whole prompt.
            parent = ends.pop(blocks[place - 1], None)
            if parent is not None:
                session[row], turn[row] = session[parent], turn[parent] + 1
                break
        if full > common:
            ends[blocks[full - 1]] = row
    return columns.with_(session=session, turn=turn)


def _turns(counts: Ints) -> str:
    """Shares of 1 to 10 turns, and beyond that quantiles up to the longest session."""
    parts = [f"{(counts == k).mean():.4g}: {k}" for k in range(1, 11) if (counts == k).any()]
    tail = counts[counts > 10]
    if len(tail):
        parts.append(f"{len(tail) / len(counts):.4g}: {expression_of(tail)}")
    return f"mixture({', '.join(parts)})"
