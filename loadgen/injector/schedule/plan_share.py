"""An injector's share of the plan, kept as columns of which one row at a time becomes a `Row`.

A closed loop's share grows while it is worked through, by a few hundred rows at a time: what that costs (some
milliseconds) does not depend on how many there are already.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tailgate.loadgen.injector.api.request_builder import Row
from tailgate.loadgen.job import Job
from tailgate.workloads.common.arrays import Ints

_EXTENSION_ROWS: Final = 256
# Rows that are taken out of the columns at once, and how many such pages are kept: sessions come back to theirs.
_PAGE_ROWS: Final = 64
_PAGES: Final = 64
_NONE: Final = -1
_COLUMNS = [
    "index", "at_ns", "session", "turn", "think_ns", "prompt_tokens", "output_tokens", "prefix_blocks",
    "content_seed", "priority", "class",
]  # fmt: skip


def _is_valid(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Where a column is not null. Arrow's own `is_valid` would import all of its functions, 50 ms before the load."""
    bits = column.buffers()[0]
    if bits is None:
        return np.ones(len(column), np.bool_)
    valid = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    return valid[column.offset : column.offset + len(column)].astype(np.bool_)


class PlanShare:
    """The rows with ``session % injectors == injector``: a session's turns stay with one injector."""

    def __init__(self, table: pa.Table, planned: int = 0, more: Callable[[int, int], pa.Table] | None = None) -> None:
        self._planned = planned  # rows of the whole plan so far, of all injectors
        self._more = more
        self._count = 0
        self._blocks: list[dict[str, pa.Array]] = []
        self._pages: dict[tuple[int, int], list[Row]] = {}
        self._first_positions: list[int] = []
        self._first_indices: list[int] = []
        self._followers: dict[int, int] = {}
        self._tails = np.zeros((2, 0), np.int64)  # by session: position and turn of its last row, if more may follow
        self._add(table)
        # Rows with a time of their own, in order of it; the others follow their predecessor in the session.
        at_ns = self._blocks[0]["at_ns"]
        timed = np.flatnonzero(_is_valid(at_ns))
        at = np.frombuffer(at_ns.buffers()[1], np.int64)[at_ns.offset :][timed]
        order = np.argsort(at, kind="stable")
        self.timed = array("q", timed[order].astype(np.int64).tobytes())
        self.timed_at_ns = array("q", at[order].astype(np.int64).tobytes())

    def _add(self, table: pa.Table) -> Ints:
        """Add a block and return the positions of its rows that begin a session."""
        block = {name: table[name].combine_chunks() for name in _COLUMNS}
        self._blocks.append(block)
        self._first_positions.append(self._count)
        self._first_indices.append(block["index"][0].as_py() if len(table) else self._planned)
        turns = block["turn"].to_numpy()
        self._link(block["session"].to_numpy(), turns, ~_is_valid(block["at_ns"]))
        starts = self._count + np.flatnonzero(turns == 0)
        self._count += len(table)
        return starts

    def __len__(self) -> int:
        return self._count

    @classmethod
    def read(cls, job: Job) -> "PlanShare":
        def mine(table: pa.Table) -> pa.Table:
            if job.injectors == 1:
                return table.select(_COLUMNS)
            ours = table["session"].to_numpy() % job.injectors == job.injector
            selected = table.select(_COLUMNS)
            return selected if ours.all() else selected.filter(pa.array(ours))

        with pq.ParquetFile(job.plan, memory_map=True) as file:
            table = file.read(columns=_COLUMNS)
        if job.extend_plan is None:
            return cls(mine(table))
        # Only a closed loop needs what makes plans; an open loop's start is spared the import.
        from tailgate.workloads.config.workload import WorkloadSpec
        from tailgate.workloads.plan.plan import ClosedRows

        workload = WorkloadSpec.model_validate(job.extend_plan["workload"])
        rows = ClosedRows(workload, job.extend_plan["seed"])
        return cls(mine(table), table.num_rows, lambda start, count: mine(rows(start, count)))

    @property
    def endless(self) -> bool:
        return self._more is not None

    def extend(self) -> Ints:
        """Add rows of a closed loop's endless sequence; returns the positions of those that begin a session."""
        assert self._more is not None
        more = self._more(self._planned, _EXTENSION_ROWS)
        starts = self._add(more)
        self._planned += _EXTENSION_ROWS
        return starts

    def session_starts(self) -> Ints:
        """Positions of the plan's rows that begin a session, in its order."""
        return np.flatnonzero(self._blocks[0]["turn"].to_numpy() == 0)

    def row(self, position: int) -> Row:
        k = bisect_right(self._first_positions, position) - 1
        page, place = divmod(position - self._first_positions[k], _PAGE_ROWS)
        rows = self._pages.get((k, page))
        if rows is None:
            if len(self._pages) == _PAGES:
                del self._pages[next(iter(self._pages))]
            rows = self._pages[k, page] = self._taken_out(self._blocks[k], page)
        return rows[place]

    def _taken_out(self, block: dict[str, pa.Array], page: int) -> list[Row]:
        """Some rows at once: a value taken from Arrow by itself costs 20 times as much."""
        columns = (block[name].slice(page * _PAGE_ROWS, _PAGE_ROWS).to_pylist() for name in _COLUMNS)
        return [Row(*values) for values in zip(*columns, strict=True)]

    def class_of(self, index: int) -> str:
        block = self._blocks[max(bisect_right(self._first_indices, index) - 1, 0)]
        return str(block["class"][int(np.searchsorted(block["index"].to_numpy(), index))].as_py())

    @property
    def has_followers(self) -> bool:
        return bool(self._followers)

    def follower(self, position: int) -> int | None:
        """Where the same session's next turn is, if that turn waits for this one."""
        return self._followers.get(position)

    def _link(self, sessions: Ints, turns: Ints, waiting: npt.NDArray[np.bool_]) -> None:
        """Find the followers among new rows, and which of them follow older ones."""
        order = np.lexsort((turns, sessions))
        before, after = order[:-1], order[1:]
        same = sessions[before] == sessions[after]
        follows = same & waiting[after] & (turns[after] == turns[before] + 1)
        self._follow(self._count + before[follows], self._count + after[follows])
        if self._more is None or not len(order):
            return
        begins, ends = order[np.append(True, ~same)], order[np.append(~same, True)]
        unknown = max(int(sessions.max()) + 1 - self._tails.shape[1], 0)
        room = max(unknown, self._tails.shape[1]) if unknown else 0  # doubled: growing costs little a row
        self._tails = np.pad(self._tails, ((0, 0), (0, room)), constant_values=_NONE) if room else self._tails
        position, turn = self._tails[:, sessions[begins]]
        goes_on = (position != _NONE) & waiting[begins] & (turns[begins] == turn + 1)
        self._follow(position[goes_on], self._count + begins[goes_on])
        self._tails[:, sessions[ends]] = self._count + ends, turns[ends]

    def _follow(self, before: Ints, after: Ints) -> None:
        self._followers.update(zip(before.tolist(), after.tolist(), strict=True))
