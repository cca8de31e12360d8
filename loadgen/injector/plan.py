"""An injector's share of the plan, as columns; one row at a time becomes a `Row`."""

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from loadgen.injector.request import Row
from loadgen.job import Job

_EXTENSION_ROWS = 4_096

_COLUMNS = [
    "index", "at_ns", "session", "turn", "think_ns", "prompt_tokens", "output_tokens", "prefix_blocks",
    "content_seed", "priority", "class",
]  # fmt: skip


class Share:
    """The rows with ``session % injectors == injector``: a session's turns stay with one injector."""

    def __init__(self, table: pa.Table, planned: int = 0, more: Callable[[int, int], pa.Table] | None = None) -> None:
        self._planned = planned  # rows of the whole plan so far, of all injectors
        self._more = more
        self._set(table)

    def _set(self, table: pa.Table) -> None:
        self._table = table
        self._columns = {name: table[name].combine_chunks() for name in _COLUMNS}
        self.index = self._columns["index"].to_numpy()
        self._at = self._columns["at_ns"]
        # Rows with a time of their own, in order of it; the others follow their predecessor in the session.
        timed = np.flatnonzero(self._at.is_valid().to_numpy(zero_copy_only=False))
        at = self._at.take(pa.array(timed)).to_numpy()
        order = np.argsort(at, kind="stable")
        self.timed = array("q", timed[order].astype(np.int64).tobytes())
        self.timed_at_ns = array("q", at[order].astype(np.int64).tobytes())
        self._followers = self._find_followers()

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def read(cls, job: Job) -> "Share":
        """A job's share of its plan.parquet."""

        def mine(table: pa.Table) -> pa.Table:
            if job.injectors == 1:
                return table.select(_COLUMNS)
            ours = table["session"].to_numpy() % job.injectors == job.injector
            return table.select(_COLUMNS).filter(pa.array(ours))

        table = pq.read_table(job.plan, columns=_COLUMNS, memory_map=True)
        if job.extend_plan is None:
            return cls(mine(table))
        # Only a closed loop needs what makes plans; an open loop's start is spared the import.
        from workloads.plan import closed_rows
        from workloads.spec import WorkloadSpec

        workload = WorkloadSpec.model_validate(job.extend_plan["workload"])
        seed = job.extend_plan["seed"]
        return cls(mine(table), table.num_rows, lambda start, count: mine(closed_rows(workload, seed, start, count)))

    def extend(self) -> None:
        """More rows of a closed loop's endless sequence."""
        assert self._more is not None
        more = self._more(self._planned, _EXTENSION_ROWS)
        self._planned += _EXTENSION_ROWS
        self._set(pa.concat_tables([self._table, more]))

    def session_starts(self) -> npt.NDArray[np.int64]:
        """Positions of the rows that begin a session, in the plan's order."""
        return np.flatnonzero(self._columns["turn"].to_numpy() == 0)

    def row(self, position: int) -> Row:
        """The row at a position of this share."""
        values: list[Any] = [self._columns[name][position].as_py() for name in _COLUMNS]
        return Row(*values)

    def class_of(self, index: int) -> str:
        """The class of the row with this index in the whole plan."""
        return str(self._columns["class"][int(np.searchsorted(self.index, index))].as_py())

    def follower(self, position: int) -> int | None:
        """Where the same session's next turn is, if that turn waits for this one."""
        return self._followers.get(position)

    def _find_followers(self) -> dict[int, int]:
        waiting = self._at.is_null().to_numpy(zero_copy_only=False)
        turns = self._columns["turn"].to_numpy()
        if not (waiting & (turns > 0)).any():
            return {}
        sessions = self._columns["session"].to_numpy()
        order = np.lexsort((turns, sessions))
        before, after = order[:-1], order[1:]
        follows = (sessions[before] == sessions[after]) & waiting[after] & (turns[after] == turns[before] + 1)
        return dict(zip(before[follows].tolist(), after[follows].tolist(), strict=True))
