"""Endless, seeded sequences of requests, from which the users of a closed loop take; a trace begins again at its end.

Any part of a sequence is the same however it is cut, so that any number of injectors can go on where the plan's table
ends.
"""

from functools import lru_cache
from typing import Final

import numpy as np

from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import TraceSpec, WorkloadSpec
from tailgate.workloads.plan.context_limit import LengthLimit, blocks_within_prompt, limit_lengths, scaled_block
from tailgate.workloads.plan.prefixes import block_lists
from tailgate.workloads.plan.request_classes import by_traffic, classes_of
from tailgate.workloads.plan.requests import class_codes, draw, longest, turn_counts
from tailgate.workloads.plan.session_starts import tenant_codes
from tailgate.workloads.sampling.random_streams import RandomField
from tailgate.workloads.table.columns import DEFAULT, NO_TIME, Columns
from tailgate.workloads.traces import replay
from tailgate.workloads.traces.detect import with_format

_GROUP: Final = "closed"
_SAMPLE_REQUESTS: Final = 4096
_SAMPLE_SESSIONS: Final = 512
_AT_ONCE: Final = 16384


def names_of(spec: WorkloadSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(spec.classes) or (DEFAULT,), tuple(spec.tenants) or (DEFAULT,)


class DrawnSequence:
    """Sessions drawn from the distributions of the classes, one after the other.

    How much lengths are scaled to fit the context is decided on the first 4,096 requests (512 sessions). With `error`,
    `check` refuses rows that are too long among those that are known to be needed; others are clipped.
    """

    def __init__(self, spec: WorkloadSpec, seed: int) -> None:
        self._spec, self._seed = spec, seed
        self._classes = by_traffic(spec, classes_of(spec))
        self.names = names_of(spec)
        stateless = all(request_class.sessions is None for request_class in self._classes)
        self._limit = LengthLimit(spec.length_scale, spec.max_context)
        self.notices: list[str] = []
        if spec.over_context != "error":
            sample = self._draw(np.arange(_SAMPLE_REQUESTS if stateless else _SAMPLE_SESSIONS))
            _, self._limit, self.notices = limit_lengths(sample, spec.length_scale, spec.max_context, spec.over_context)
        self.block_tokens = scaled_block(spec.block_tokens, self._limit.factor)

    def check(self, count: int, *, endless: bool) -> list[str]:
        """Check that the first rows fit the context with `over_context: error`; a notice where later ones may not."""
        spec = self._spec
        if spec.over_context != "error" or spec.max_context is None:
            return []
        rounding = 0 if spec.length_scale == 1.0 else 1
        if (
            max(longest(request_class) for request_class in self._classes) * spec.length_scale + rounding
            <= spec.max_context
        ):
            return []
        first, _, last = self._sessions_of(0, count)
        drawn = self._draw(np.arange(first, last)).take(np.arange(count))
        limit_lengths(drawn, spec.length_scale, spec.max_context, "error")
        if not endless:
            return []
        return [
            f"the first {count:,} requests fit the context of {spec.max_context:,} tokens; "
            "later ones that don't would be clipped to it (the sequence is endless)"
        ]

    def rows(self, start: int, count: int) -> Columns:
        """Rows [start, start + count), cut from the whole sessions that hold them."""
        first, skip, last = self._sessions_of(start, count)
        columns = self._limit.apply(self._draw(np.arange(first, last)))
        blocks = block_lists(self._classes, (_GROUP,), self._seed, columns, self.block_tokens, self._limit.factor)
        columns = columns.with_(prefix_blocks=blocks, session=columns.session + first)
        return columns.take(np.arange(skip, skip + count))

    def _draw(self, ordinals: Ints) -> Columns:
        columns = draw(self._classes, self._seed, _GROUP, 0, ordinals)
        tenants = tenant_codes(self._spec, self._seed, _GROUP, ordinals)
        # Whatever the pace, a closed loop's turns follow their answers.
        return columns.with_(tenant_code=tenants[columns.session], at_ns=np.full(len(columns), NO_TIME))

    def _sessions_of(self, start: int, count: int) -> tuple[int, int, int]:
        """The session of row `start`, that row's place in it, and the first session behind the rows."""
        if all(request_class.sessions is None for request_class in self._classes):
            return start, 0, start + count
        session = rows = 0
        first, skip = -1, 0
        while True:
            turns = self._turns(np.arange(session, session + _AT_ONCE))
            ends = rows + np.cumsum(turns)
            if first < 0 and start < ends[-1]:
                place = int(np.searchsorted(ends, start, side="right"))
                first, skip = session + place, start - int(ends[place] - turns[place])
            if start + count <= ends[-1]:
                return first, skip, session + int(np.searchsorted(ends, start + count, side="left")) + 1
            session, rows = session + _AT_ONCE, int(ends[-1])

    def _turns(self, ordinals: Ints) -> Ints:
        codes = class_codes(self._classes, self._seed, _GROUP, ordinals)
        turns = np.ones(len(ordinals), np.int64)
        for request_class in self._classes:
            mine = codes == request_class.code
            turns[mine] = turn_counts(request_class, self._seed, _GROUP, ordinals[mine])
        return turns


class TraceSequence:
    """A trace's rows in their order; after the last comes the first again, with other content but the same sharing."""

    def __init__(self, spec: WorkloadSpec, seed: int) -> None:
        if spec.trace is None:
            raise ValueError("no trace")
        self._spec, self._seed = spec, seed
        described = with_format(spec.trace)
        if spec.content.kind == "replay" and described.format != "openai":
            raise UserError(
                f"`content: {{kind: replay}}` sends the bodies of a log in OpenAI's shape; this is {described.format}",
                where=str(described.file),
                remedy="Use content: corpus",
            )
        trace = _loaded(described.model_dump_json(), seed)
        columns, fit, more = limit_lengths(trace.columns, spec.length_scale, spec.max_context, spec.over_context)
        self.block_tokens = max(1, round((trace.block_tokens or spec.block_tokens) * fit.factor))
        self._columns = blocks_within_prompt(columns, self.block_tokens)
        self._has_times = trace.has_times
        self.notices = [*trace.notices, *more]
        self.names = trace.classes, tuple(spec.tenants) or trace.tenants

    def __len__(self) -> int:
        """The trace's own requests, each once."""
        return len(self._columns)

    def check(self, count: int, *, endless: bool) -> list[str]:
        return []  # all rows of the trace have been checked

    def once(self) -> Columns:
        """The trace at its own times."""
        if not self._has_times:
            raise UserError(
                "the trace has no times",
                where="workload.trace",
                remedy="Give arrivals (--rate), or users (--users) for a closed loop.",
            )
        first = self._columns.turn == 0
        at_once = int((self._columns.at_ns[first] == 0).sum())
        if self._waits() and at_once > 1:
            self.notices.append(
                f"{at_once:,} sessions start at once, as each counts from its own beginning: `arrivals` spread them"
            )
        return self._finished(self._columns, np.arange(len(self._columns)))

    def at_times(self, times: Ints) -> Columns:
        """The trace's requests in order at other times, one for each: sessions are not kept together.

        Where later turns wait for answers, the times are those of whole sessions.
        """
        if self._waits():
            return self._sessions_at(times)
        zeros = np.zeros(len(times), np.int64)
        return self.rows(0, len(times)).with_(at_ns=times, session=np.arange(len(times)), turn=zeros, think_ns=zeros)

    def _waits(self) -> bool:
        """Whether requests wait for the answer to their predecessor; sessions then stand one behind the other."""
        return self._has_times and bool((self._columns.at_ns == NO_TIME).any())

    def _sessions_at(self, times: Ints) -> Columns:
        begins = np.flatnonzero(np.diff(self._columns.session, prepend=-1))
        rounds, rest = divmod(len(times), len(begins))
        columns = self.rows(0, rounds * len(self._columns) + int(begins[rest]))
        first = np.diff(columns.session, prepend=-1) != 0
        return columns.with_(at_ns=np.where(first, times[np.cumsum(first) - 1], NO_TIME))

    def rows(self, start: int, count: int) -> Columns:
        """Rows [start, start + count), without times."""
        n = len(self._columns)
        places = np.arange(start, start + count)
        columns = self._columns.take(places % n)
        sessions = int(self._columns.session.max()) + 1
        columns = columns.with_(session=columns.session + (places // n) * sessions, at_ns=np.full(count, NO_TIME))
        return self._finished(columns, places)

    def _finished(self, columns: Columns, places: Ints) -> Columns:
        if self._spec.tenants:
            columns = columns.with_(tenant_code=tenant_codes(self._spec, self._seed, "trace", columns.session))
        if self._spec.content.kind == "replay":  # the line of the log: see workloads.traces.logged_bodies
            return columns.with_(content_seed=columns.ordinal.astype(np.uint64))
        return columns.with_(content_seed=RandomField(self._seed, "content", "trace").u64(places))


@lru_cache(maxsize=2)
def _loaded(trace: str, seed: int) -> "replay.Replay":
    # Keyed by the spec's text, since `closed_rows` asks again for more of the same trace.
    return replay.load(TraceSpec.model_validate_json(trace), seed)


RequestSequence = DrawnSequence | TraceSequence
"""Requests in the order in which users take them.

Both have the `names` of classes and tenants, `notices` for the person, the length of a prefix block (`block_tokens`),
`rows(start, count)`, and `check`.
"""


def sequence_of(spec: WorkloadSpec, seed: int) -> RequestSequence:
    return TraceSequence(spec, seed) if spec.trace is not None else DrawnSequence(spec, seed)
