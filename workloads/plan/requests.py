"""The requests of sessions, class by class: turns, lengths, think times.

Everything here is a function of (seed, group, class, ordinal, turn), where a *group* is a set of sessions with common
arrivals and the ordinal counts them. There is no order of drawing, so any part of a plan can be made alone. When
sessions start is decided in `session_starts`, what prompts share in `prefixes`.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from tailgate.workloads.common.arrays import Floats, Ints
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.request_classes import RequestClass, SessionDistributions
from tailgate.workloads.sampling import portable_math
from tailgate.workloads.sampling.distributions import ProbabilityDistribution, correlated, whole
from tailgate.workloads.sampling.random_streams import RandomField
from tailgate.workloads.table.columns import NO_TIME, Columns, concatenate, constant, stateless

_TOP: Final = np.array([1.0 - 2.0**-53])  # the largest number of a Field


def class_codes(classes: tuple[RequestClass, ...], seed: int, group: str, ordinals: Ints) -> Ints:
    weights = np.array([request_class.weight for request_class in classes], dtype=np.float64)
    codes = np.array([request_class.code for request_class in classes], dtype=np.int64)
    if len(classes) == 1:
        return np.full(len(ordinals), codes[0])
    edges = np.cumsum(weights) / float(np.cumsum(weights)[-1])
    place = np.searchsorted(edges[:-1], RandomField(seed, "class", group).uniform(ordinals), side="right")
    return codes[place]


def turn_counts(request_class: RequestClass, seed: int, group: str, ordinals: Ints) -> Ints:
    if request_class.sessions is None:
        return np.ones(len(ordinals), np.int64)
    drawn = whole(request_class.sessions.turns.quantile(_field(seed, group, request_class, "turns").uniform(ordinals)))
    return np.minimum(drawn, request_class.sessions.max_turns)


def draw(classes: tuple[RequestClass, ...], seed: int, group: str, group_code: int, ordinals: Ints) -> Columns:
    """All requests of the given sessions, session by session in the given order, turn by turn.

    `session` is the position in `ordinals`; `at_ns` is NO_TIME but for later turns by the clock, where it is
    the time after the session's start.
    """
    codes = class_codes(classes, seed, group, ordinals)
    parts: list[Columns] = []
    for request_class in classes:
        mine = np.flatnonzero(codes == request_class.code) if len(classes) > 1 else np.arange(len(ordinals))
        if len(mine):
            parts.append(_of_class(request_class, seed, group, group_code, ordinals[mine], mine))
    if not parts:
        return stateless(0)
    if len(parts) == 1:
        return parts[0]
    joined = concatenate(parts)
    # Each part is in order of session and turn already: a stable sort by session interleaves them.
    return joined.take(np.argsort(joined.session, kind="stable"))


def _of_class(
    request_class: RequestClass, seed: int, group: str, group_code: int, ordinals: Ints, places: Ints
) -> Columns:
    sessions, counts = request_class.sessions, turn_counts(request_class, seed, group, ordinals)
    total = int(counts.sum())
    row_session = np.repeat(np.arange(len(ordinals)), counts) if total != len(ordinals) else np.arange(total)
    starts = np.cumsum(counts) - counts
    turn = np.arange(total) - starts[row_session]
    ordinal = ordinals[row_session]

    def uniform(purpose: str) -> Floats:
        return _field(seed, group, request_class, purpose).uniform(ordinal, turn)

    u_prompt, u_output = uniform("prompt"), uniform("output")
    if request_class.spearman:
        u_output = correlated(u_prompt, u_output, request_class.spearman)
    added, output = whole(request_class.prompt.quantile(u_prompt)), whole(request_class.output.quantile(u_output))
    think, chapter, at_ns = constant(0, total), constant(0, total), constant(NO_TIME, total)
    prompt = added
    if sessions is not None:
        later = turn > 0
        added[later] = whole(sessions.new_tokens.quantile(u_prompt[later]))
        if sessions.resend:
            prompt = _with_history(added, output, starts, row_session)
            if sessions.compact_at is not None:
                prompt = _compacted(prompt, starts, row_session, sessions.compact_at)
            chapter = _chapters(prompt, starts, row_session)
        think = np.zeros(total, np.int64)
        think[later] = _think_ns(sessions, uniform("think")[later])
        if sessions.by_clock:
            elapsed = np.cumsum(think)
            at_ns = np.where(later, elapsed - elapsed[starts[row_session]], NO_TIME)
    return Columns(
        at_ns=at_ns,
        session=places[row_session],
        turn=turn,
        think_ns=think,
        class_code=constant(request_class.code, total),
        tenant_code=constant(0, total),
        priority=constant(request_class.priority, total),
        prompt_tokens=prompt,
        output_tokens=output,
        content_seed=_field(seed, group, request_class, "content").u64(ordinal, turn),
        ordinal=ordinal,
        group_code=constant(group_code, total),
        chapter=chapter,
    )


def longest(request_class: RequestClass) -> int:
    """A bound on prompt + output of any request of a class: its distributions at the largest uniform number."""

    def largest(distribution: ProbabilityDistribution) -> int:
        return int(whole(distribution.quantile(_TOP))[0])

    prompt, output, sessions = largest(request_class.prompt), largest(request_class.output), request_class.sessions
    if sessions is None:
        return prompt + output
    new = largest(sessions.new_tokens)
    if not sessions.resend:
        return max(prompt, new) + output
    history = prompt + (min(largest(sessions.turns), sessions.max_turns) - 1) * (new + output)
    return max(prompt, history if sessions.compact_at is None else min(history, sessions.compact_at)) + output


def _with_history(added: Ints, output: Ints, starts: Ints, row_session: Ints) -> Ints:
    """Each turn's prompt: all questions and answers before it, and what it adds."""
    total = np.cumsum(added + output) - output
    before = total[starts] - added[starts]
    return np.asarray(total - before[row_session])


def _compacted(prompt: Ints, starts: Ints, row_session: Ints, limit: int) -> Ints:
    """Prompts that begin anew where they would exceed `limit`, with the first one's length or a quarter of `limit`."""
    prompt = prompt.copy()
    anew = np.minimum(prompt[starts], limit // 4)
    first_row = np.zeros(len(prompt), bool)
    first_row[starts] = True
    while True:
        rows = np.flatnonzero((prompt > limit) & ~first_row)
        if not len(rows):
            return prompt
        # The first row of each session that is too long, and by how much it and all after it go down.
        sessions, at = np.unique(row_session[rows], return_index=True)
        drop = np.zeros(len(starts), np.int64)
        begin = np.full(len(starts), len(prompt))
        begin[sessions], drop[sessions] = rows[at], prompt[rows[at]] - anew[sessions]
        prompt -= np.where(np.arange(len(prompt)) >= begin[row_session], drop[row_session], 0)


def _chapters(prompt: Ints, starts: Ints, row_session: Ints) -> Ints:
    """How often a conversation has begun anew before each row, which shows as a prompt shorter than the one before."""
    shorter = np.zeros(len(prompt), np.int64)
    shorter[1:] = (row_session[1:] == row_session[:-1]) & (prompt[1:] < prompt[:-1])
    count = np.cumsum(shorter)
    return np.asarray(count - count[starts][row_session])


def _think_ns(law: SessionDistributions, u: Floats) -> Ints:
    seconds = np.minimum(np.maximum(law.think_s.quantile(u), 0.0), law.max_think_s)
    if len(seconds) and not np.isfinite(seconds).all():
        raise UserError("a think time is infinite", where="workload.sessions.think")
    return np.asarray(np.rint(seconds * 1e9).astype(np.int64))


def _field(seed: int, group: str, request_class: RequestClass, purpose: str) -> RandomField:
    return RandomField(seed, purpose, group, request_class.name)


def zipf_place(pool: int, exponent: float) -> Callable[[Floats], Ints]:
    """From uniform numbers to places 0 ... pool-1 of a pool, place k with weight (k+1)^-exponent."""
    weights = portable_math.power(np.arange(1.0, pool + 1.0), -exponent)
    edges = np.cumsum(weights)
    edges /= edges[-1]

    def place(u: Floats) -> Any:
        return np.searchsorted(edges[:-1], u, side="right").astype(np.int64)

    return place
