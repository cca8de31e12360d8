"""The columns of a plan: one row for each request, what is to be sent and when.

`PLAN_SCHEMA` is the contract between `workloads` (which writes plans) and everything that reads them. Times are integer
nanoseconds from the run's start; lengths are tokens of the target's tokenizer. While a plan is being made its rows are
NumPy `Columns`; `to_table` gives them the schema.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.common.errors import UserError

NO_TIME: Final = np.iinfo(np.int64).min
DEFAULT: Final = "default"
MAX_ROWS: Final = 50_000_000

PLAN_SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        # null in a closed loop (the user decides) and for a later turn of an open-loop session
        # (its predecessor's end plus `think_ns` decides).
        pa.field("at_ns", pa.int64()),
        pa.field("session", pa.int64(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("think_ns", pa.int64(), nullable=False),
        pa.field("class", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("tenant", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("priority", pa.int32(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("output_tokens", pa.int32(), nullable=False),
        # Shared-prefix block ids; the same id is the same content in every request of the plan.
        pa.field("prefix_blocks", pa.list_(pa.uint64()), nullable=False),
        pa.field("content_seed", pa.uint64(), nullable=False),
        pa.field("phase", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    ]
)

PHASES = ("warmup", "measure", "cooldown")


@dataclass(frozen=True)
class Columns:
    """Arrays with one entry for each request; `at_ns` is NO_TIME where it has none; codes index the workload's names.

    `prefix_blocks` is None while no request has any. Columns are never written into: those with one value for all
    requests (`constant`) take no memory.
    """

    at_ns: Ints
    session: Ints
    turn: Ints
    think_ns: Ints
    class_code: Ints
    tenant_code: Ints
    priority: Ints
    prompt_tokens: Ints
    output_tokens: Ints
    content_seed: npt.NDArray[np.uint64]
    prefix_blocks: pa.ListArray | None = None
    # Where a request came from, which is not part of the plan: the ordinal of its session within its group, and how
    # often that conversation had begun anew before it.
    ordinal: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    group_code: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    chapter: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.session)

    def take(self, rows: npt.NDArray[Any]) -> "Columns":
        """The rows of an index array or a mask, in that order."""
        count = int(np.count_nonzero(rows)) if rows.dtype == bool else len(rows)
        if rows.dtype == bool and count == len(self):
            return self
        picked = {
            name: np.broadcast_to(column[:1], count) if _is_constant(column) else column[rows]
            for name in _ARRAYS
            for column in (getattr(self, name),)
        }
        blocks = self.prefix_blocks
        if blocks is not None:
            index = np.flatnonzero(rows) if rows.dtype == bool else rows
            blocks = blocks.take(pa.array(index))
        return Columns(**picked, prefix_blocks=blocks)

    def with_(self, **columns: Any) -> "Columns":
        return replace(self, **columns)


_ARRAYS: Final = tuple(column.name for column in fields(Columns) if column.name != "prefix_blocks")


def check_size(rows: int) -> None:
    """Refuse a plan that fits into no memory before it is made."""
    if rows > MAX_ROWS:
        raise UserError(
            f"the plan would have {rows:,} requests, more than {MAX_ROWS:,}",
            where="workload",
            remedy="Run shorter or at a lower rate, or split the run",
        )


def constant(value: int, n: int) -> Ints:
    """n equal values in the memory of one."""
    return np.broadcast_to(np.int64(value), n)


def _is_constant(column: npt.NDArray[Any]) -> bool:
    return column.strides == (0,)


def stateless(n: int, **columns: Any) -> Columns:
    """n requests that are each a session of their own, of the first class and tenant, with the columns given."""
    base: dict[str, Any] = dict.fromkeys(_ARRAYS, constant(0, n))
    base |= {"at_ns": constant(NO_TIME, n), "content_seed": np.broadcast_to(np.uint64(0), n)}
    if "session" not in columns:
        base["session"] = np.arange(n)
    return Columns(**(base | columns))


def concatenate(parts: list[Columns]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    joined = {name: _joined([getattr(part, name) for part in parts]) for name in _ARRAYS}
    blocks = None
    if any(part.prefix_blocks is not None for part in parts):
        lists = [part.prefix_blocks if part.prefix_blocks is not None else empty_blocks(len(part)) for part in parts]
        blocks = pa.concat_arrays(lists)
    return Columns(**joined, prefix_blocks=blocks)


def _joined(columns: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if all(map(_is_constant, columns)) and len({int(value) for column in columns for value in column[:1]}) == 1:
        first = next(column for column in columns if len(column))
        return np.broadcast_to(first[:1], sum(map(len, columns)))
    return np.concatenate(columns)


def empty_blocks(n: int) -> pa.ListArray:
    return blocks_of(np.zeros(n, np.int64), np.empty(0, np.uint64))


def blocks_of(counts: Ints, ids: npt.NDArray[np.uint64]) -> pa.ListArray:
    """Lists of the given lengths over consecutive ids."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids, pa.uint64()))


def block_counts(blocks: pa.ListArray) -> Ints:
    return np.asarray(np.diff(blocks.offsets.to_numpy()).astype(np.int64))


def places_within(counts: Ints) -> Ints:
    """0, 1, ... within each list of the given lengths, one list after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def first_turns(turn: Ints) -> Ints:
    """For each row the row of its session's first turn, where rows are session by session."""
    return np.asarray(np.maximum.accumulate(np.where(turn == 0, np.arange(len(turn)), 0)))


def last_timed(at_ns: Ints) -> Ints:
    """For each row the nearest row at or before it that has a time: of later turns, their session's start."""
    return np.asarray(np.maximum.accumulate(np.where(at_ns != NO_TIME, np.arange(len(at_ns)), 0)))


def to_table(
    columns: Columns, classes: tuple[str, ...], tenants: tuple[str, ...], warmup_ns: int, first_index: int = 0
) -> pa.Table:
    """The plan's table: index by position, phase by time (of a later turn: its session's start)."""
    n = len(columns)
    timed = columns.at_ns != NO_TIME
    started = columns.at_ns[last_timed(columns.at_ns)]  # a turn without a time counts with its session's start
    phase = np.where((started != NO_TIME) & (started < warmup_ns), 0, 1).astype(np.int32)
    blocks = columns.prefix_blocks if columns.prefix_blocks is not None else empty_blocks(n)
    arrays = [
        pa.array(np.arange(first_index, first_index + n)),
        pa.array(columns.at_ns, mask=~timed),
        pa.array(columns.session),
        pa.array(columns.turn.astype(np.int32)),
        pa.array(columns.think_ns),
        pa.DictionaryArray.from_arrays(pa.array(columns.class_code.astype(np.int32)), pa.array(classes, pa.string())),
        pa.DictionaryArray.from_arrays(pa.array(columns.tenant_code.astype(np.int32)), pa.array(tenants, pa.string())),
        pa.array(columns.priority.astype(np.int32)),
        pa.array(columns.prompt_tokens.astype(np.int32)),
        pa.array(columns.output_tokens.astype(np.int32)),
        blocks,
        pa.array(columns.content_seed),
        pa.DictionaryArray.from_arrays(pa.array(phase), pa.array(PHASES, pa.string())),
    ]
    return pa.Table.from_arrays(arrays, schema=PLAN_SCHEMA)
