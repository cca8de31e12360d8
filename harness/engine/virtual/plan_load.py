"""A plan's requests in virtual time: at their planned times, or when users ask. Nobody is ever late.

Times are integer nanoseconds, as in a run's records; what a simulation gets is the same as seconds.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tailgate.harness.engine.virtual.plan_rows import PlanRows
from tailgate.harness.engine.virtual.replica import VirtualSequence

Patience = Callable[[int], int | None]  # of a row's index: how long its user waits from when it is due, ns


@dataclass(slots=True)
class Limits:
    """When users give up: after `timeout_ns`, or when their patience is over."""

    timeout_ns: int | None = None
    patience: Patience | None = None

    def deadline_s(self, index: int, due_ns: int) -> float:
        waits = [self.timeout_ns, None if self.patience is None else self.patience(index)]
        return min(((due_ns + wait) / 1e9 for wait in waits if wait is not None), default=math.inf)


class _DueRows:
    """Rows by the time at which they are due."""

    def __init__(self, rows: PlanRows, limits: Limits) -> None:
        self.rows = rows
        self.due_ns: dict[int, int] = {}  # of every row that was sent
        self._limits = limits
        self._heap: list[tuple[int, int, Any]] = []
        self._numbered = 0

    def _at(self, due_ns: int, what: Any) -> None:
        self._numbered += 1
        heapq.heappush(self._heap, (due_ns, self._numbered, what))

    def next_s(self) -> float:
        return self._heap[0][0] / 1e9 if self._heap else math.inf

    def _sent(self, position: int, due_ns: int) -> tuple[VirtualSequence, float]:
        self.due_ns[position] = due_ns
        index = self.rows.column("index")[position]
        return self.rows.sequence(position, due_ns / 1e9), self._limits.deadline_s(index, due_ns)


class OpenPlan(_DueRows):
    """The open loop: each row at its time, each later turn at its predecessor's end plus the time to think."""

    def __init__(self, rows: PlanRows, limits: Limits, until_s: float = math.inf) -> None:
        super().__init__(rows, limits)
        self.feedback = rows.has_followers
        self.until_s = until_s
        self._timed = iter(sorted((at, position) for position, at in enumerate(rows.at_ns) if at is not None))
        self._first = next(self._timed, None)

    def next_s(self) -> float:
        return min(self._first[0] / 1e9 if self._first else math.inf, super().next_s())

    def take(self, now_s: float) -> Iterator[tuple[VirtualSequence, float]]:
        while self._first is not None and self._first[0] / 1e9 <= now_s:
            at, position = self._first
            self._first = next(self._timed, None)
            yield self._sent(position, at)
        while self._heap and self._heap[0][0] / 1e9 <= now_s:
            due_ns, _, position = heapq.heappop(self._heap)
            yield self._sent(position, due_ns)

    def ended(self, row: int, now_s: float) -> None:
        follower = self.rows.follower(row) if self.feedback else None
        if follower is not None:
            self._at(round(now_s * 1e9) + self.rows.think_ns(follower), follower)


@dataclass(frozen=True, slots=True)
class UserChange:
    """From `at_ns` on there are `users`."""

    at_ns: int
    users: int


@dataclass(slots=True)
class _User:
    next_turn: int | None = None  # position of its session's next turn
    came: bool = False  # has asked before
    left: bool = False


@dataclass(slots=True)
class UserCount:
    """How many users there were from a time on, and the integral of their number."""

    since_ns: int
    now: int = 0
    most: int = 0
    _changed_ns: int = 0
    _area: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)

    def change(self, at_ns: int, users: int) -> None:
        self._area += self.now * max(at_ns - max(self._changed_ns, self.since_ns), 0)
        if at_ns <= self.since_ns:
            self.most = 0
        self.now, self._changed_ns = users, at_ns
        self.most = max(self.most, users)
        self.marks.append((at_ns, users))

    def summary(self, until_ns: int) -> dict[str, float]:
        whole = self._area + self.now * max(until_ns - max(self._changed_ns, self.since_ns), 0)
        return {"mean": whole / max(until_ns - self.since_ns, 1), "max": float(self.most)}


class ClosedPlan(_DueRows):
    """The closed loop: users work through session after session, think between turns, and come and go by stages.

    It closes at `close_ns`, or when `most` requests have been asked for: from then on nobody asks, and what is in
    flight has `drain_ns` left. A user who is taken away leaves at once; its request is still answered.
    """

    feedback = True

    def __init__(
        self, rows: PlanRows, limits: Limits, changes: Sequence[UserChange], *, close_ns: int | None, drain_ns: int,
        most: int | None = None, count_from_ns: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(rows, limits)
        self.users = UserCount(count_from_ns)
        self.closed_ns: int | None = None
        self.until_s = math.inf
        self._drain_ns = drain_ns
        self._most = most
        self.returns_ns: list[int] = []  # when users came back for another request
        self._asked = 0
        self._present: list[_User] = []
        self._of_row: dict[int, _User] = {}
        self._next_start = 0
        for change in changes:
            self._at(change.at_ns, change.users)
        if close_ns is not None:
            self._at(close_ns, None)

    def next_s(self) -> float:
        return math.inf if self.closed_ns is not None else super().next_s()

    def take(self, now_s: float) -> Iterator[tuple[VirtualSequence, float]]:
        while self.closed_ns is None and self._heap and self._heap[0][0] / 1e9 <= now_s:
            due_ns, _, what = heapq.heappop(self._heap)
            if what is None:
                self._close(due_ns)
            elif isinstance(what, int):
                self._set_users(due_ns, what)
            elif not what.left and (position := self._next_row(what)) is not None:
                if what.came:
                    self.returns_ns.append(due_ns)
                what.came = True
                self._of_row[position] = what
                self._asked += 1
                sent = self._sent(position, due_ns)
                if self._asked == self._most:
                    self._close(due_ns)
                yield sent

    def ended(self, row: int, now_s: float) -> None:
        user = self._of_row.pop(row)
        if user.left:
            return
        user.next_turn = self.rows.follower(row)
        think_ns = 0 if user.next_turn is None else self.rows.think_ns(user.next_turn)
        self._at(round(now_s * 1e9) + think_ns, user)

    def _close(self, at_ns: int) -> None:
        self.closed_ns = at_ns
        self.until_s = (at_ns + self._drain_ns) / 1e9

    def _set_users(self, at_ns: int, users: int) -> None:
        while len(self._present) > users:
            self._present.pop().left = True
        for _ in range(users - len(self._present)):
            self._present.append(_User())
            self._at(at_ns, self._present[-1])
        self.users.change(at_ns, users)

    def _next_row(self, user: _User) -> int | None:
        """The position of a user's next request; None where a plan that isn't endless has no more."""
        if user.next_turn is not None:
            return user.next_turn
        for position in chain(range(self._next_start, len(self.rows)), self._beyond()):
            self._next_start = position + 1
            if self.rows.begins(position):
                # Turns of a session that begins the plan's last rows may lie beyond them.
                while self.rows.endless and position + 1 == len(self.rows):
                    self.rows.extend()
                return position
        return None

    def _beyond(self) -> Iterator[int]:
        while self.rows.endless:
            first = len(self.rows)
            self.rows.extend()
            yield from range(first, len(self.rows))
