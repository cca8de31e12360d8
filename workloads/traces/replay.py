"""A slice of a recorded trace as a plan's columns: order, slice, stamps on a grid, speed.

What a file's bytes mean is known to the modules in `formats`; `rescale` changes the rate; the limit of the context,
hashes and prompts belong to the plan.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import TraceSpec
from tailgate.workloads.sampling.random_streams import RandomField
from tailgate.workloads.table.columns import DEFAULT, NO_TIME, Columns, block_counts, blocks_of, stateless
from tailgate.workloads.traces.detect import with_format
from tailgate.workloads.traces.formats import (
    azure,
    burstgpt,
    kvcachetester,
    mooncake,
    named_columns,
    openai_log,
    ragpulse,
    servegen,
)
from tailgate.workloads.traces.grid import grid_of
from tailgate.workloads.traces.rescale import at_rate, at_speed, renumbered, turns_of
from tailgate.workloads.traces.rows import NO_PAUSE, Faults, Reader, Rows, joined

_GRID_ROWS: Final = 20
# What is known of a format's recorder: a slice of it that is too short to prove the grid lies on it all the same.
_RECORDERS_GRID: Final = {"mooncake": 3_000_000_000, "burstgpt": 1_000_000_000}
_READERS: Final[dict[str, Callable[[Path, Faults], Reader]]] = {
    "azure": azure.read, "burstgpt": burstgpt.read, "mooncake": mooncake.read, "ragpulse": ragpulse.read,
    "kv-cache-tester": kvcachetester.read, "openai": openai_log.read,
}  # fmt: skip


@dataclass(frozen=True)
class Replay:
    """A slice of a trace: its requests, and the names that its codes stand for.

    Requests with times of their own are in order of time; those that follow their predecessor stand behind it.
    """

    columns: Columns
    classes: tuple[str, ...] = (DEFAULT,)
    tenants: tuple[str, ...] = (DEFAULT,)
    block_tokens: int | None = None
    has_times: bool = True
    notices: list[str] = field(default_factory=list)


def load(spec: TraceSpec, seed: int = 0) -> Replay:
    """The requests of the slice, with `at_ns` from the slice's start at the asked rate and speed.

    The slice's `start` counts from the trace's first row. Reading ends at the first piece
    that lies wholly behind the slice.
    """
    spec = with_format(spec)
    faults = Faults(spec.file, spec.skip_bad_rows)
    rows = joined(_sliced(_reader(spec, seed, faults), spec))
    if rows is None:
        raise UserError(
            "all rows of the trace are broken" if faults.skipped else "the trace holds no requests",
            where=str(spec.file),
        )
    notices = faults.summary()
    rows = _answerable(rows, spec, notices)
    if rows.has_times:
        rows = _ordered(rows, spec, notices)
        rows = _spread(rows, spec, seed, notices)
    classes, class_code = _codes(rows.classes, len(rows))
    tenants, tenant_code = _codes(rows.tenants, len(rows))
    columns = _columns(rows, seed).with_(class_code=class_code, tenant_code=tenant_code)
    if rows.think_ns is not None and rows.waits.any():
        columns = _following(columns, rows.think_ns)
    columns = at_speed(columns, spec.speed)
    if spec.rate is not None and spec.format != "servegen":
        columns, notice = at_rate(columns, spec, seed)
        notices.append(notice)
    return Replay(columns, classes, tenants, rows.block_tokens, rows.has_times, notices)


def reader_of(spec: TraceSpec) -> Callable[[Path, Faults], Reader]:
    """The reader of a recorded format; ServeGen has none."""
    if spec.format in _READERS:
        return _READERS[spec.format]
    match spec.format:
        case "csv":
            return partial(named_columns.read_csv, columns=spec.columns, unit=spec.time_unit)
        case "jsonl" | "parquet":
            return partial(
                named_columns.read_records, columns=spec.columns, unit=spec.time_unit, block_tokens=spec.block_tokens,
                parquet=spec.format == "parquet",
            )  # fmt: skip
        case "servegen":
            raise UserError("ServeGen holds clients, not requests", where="workload.trace.format")
    raise ValueError("the format has not been detected")


def _reader(spec: TraceSpec, seed: int, faults: Faults) -> Reader:
    if spec.format == "servegen":
        if spec.duration is None:
            raise UserError(
                "ServeGen's clients send for days: say how long the slice is to be", where="workload.trace.duration"
            )
        rate = None if spec.rate is None else spec.rate / spec.speed  # its clients' time is not yet compressed
        yield servegen.generate(spec.file, faults, seed, spec.start, spec.duration, rate)
    else:
        yield from reader_of(spec)(spec.file, faults)


def _sliced(reader: Reader, spec: TraceSpec) -> Iterator[Rows]:
    """The pieces cut to the slice, with times from its start; ends early where all that follows is later."""
    if spec.format == "servegen":
        yield from reader
        return
    begin_ns = round(spec.start * 1e9)
    end_ns = None if spec.duration is None else begin_ns + round(spec.duration * 1e9)
    origin: int | None = None
    latest, rows_in_slice = 0, 0
    for rows in reader:
        if not len(rows):
            continue
        if not rows.has_times:
            if begin_ns or end_ns is not None:
                raise UserError("a trace without times can't be cut by time", where="workload.trace.start")
            rows_in_slice += len(rows)
            yield rows
            continue
        origin = int(rows.at_ns[0]) if origin is None else origin
        at_ns = rows.at_ns - origin
        latest = max(latest, int(at_ns.max()))
        if end_ns is not None and int(at_ns.min()) >= end_ns:
            break
        inside = at_ns >= begin_ns if begin_ns else np.ones(len(rows), bool)
        if end_ns is not None:
            inside &= at_ns < end_ns
        piece = rows.take(inside)
        rows_in_slice += len(piece)
        yield replace(piece, at_ns=piece.at_ns - (origin + begin_ns))
    if origin is not None and not rows_in_slice:
        raise UserError(
            f"the slice from {spec.start:g} s" + (f" for {spec.duration:g} s" if spec.duration else "") + " is empty",
            where=str(spec.file),
            remedy=f"The trace holds {latest / 1e9:,.1f} s",
        )


def _answerable(rows: Rows, spec: TraceSpec, notices: list[str]) -> Rows:
    """The requests of known length; one without an answer asks for one token."""
    empty = rows.prompt_tokens < 1
    if empty.any():
        notices.append(f"{spec.file.name}: {int(empty.sum()):,} requests without prompt tokens (failed) left out")
        rows = rows.take(~empty)
        if not len(rows):
            raise UserError("no request has prompt tokens", where=str(spec.file))
    silent = rows.output_tokens < 1
    if silent.any():
        notices.append(f"{spec.file.name}: {int(silent.sum()):,} requests without output tokens ask for 1")
        rows = replace(rows, output_tokens=np.maximum(rows.output_tokens, 1))
    return rows


def _ordered(rows: Rows, spec: TraceSpec, notices: list[str]) -> Rows:
    """In order of time, unless some follow their predecessor, whose times count within their session only."""
    waits = rows.waits
    backwards = int((np.diff(rows.at_ns[~waits]) < 0).sum())
    if not backwards or waits.any():
        return rows
    notices.append(f"{spec.file.name}: the clock went backwards {backwards:,} times; rows are sorted by time")
    rows = rows.take(np.argsort(rows.at_ns, kind="stable"))
    if rows.at_ns[0] >= 0:
        return rows
    # The file's first row is not the earliest, from which the slice now counts.
    rows = replace(rows, at_ns=rows.at_ns - rows.at_ns[0])
    return rows if spec.duration is None else rows.take(rows.at_ns < round(spec.duration * 1e9))


def _spread(rows: Rows, spec: TraceSpec, seed: int, notices: list[str]) -> Rows:
    """Stamps that lie on a coarse grid (Mooncake: 3 s, BurstGPT: 1 s), spread evenly within it.

    Otherwise all arrivals of a tick would come at once, and any burstiness measured would be the grid's.
    """
    if not spec.spread or rows.waits.any() or len(rows) < _GRID_ROWS:
        return rows
    grid = grid_of(rows.at_ns, _RECORDERS_GRID.get(spec.format))
    if grid is None:
        return rows
    notices.append(
        f"{spec.file.name}: its stamps lie on a {grid / 1e9:.3g} s grid; they are spread evenly within it "
        "(--no-spread, or `spread: false`, replays them as they are)"
    )
    u = RandomField(seed, "spread").uniform(np.arange(len(rows)))
    return replace(rows, at_ns=np.sort(rows.at_ns + (u * grid).astype(np.int64)))


def _codes(names: pa.Array | None, n: int) -> tuple[tuple[str, ...], Ints]:
    if names is None:
        return (DEFAULT,), np.zeros(n, np.int64)
    encoded = names.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    listed = tuple(str(name) or DEFAULT for name in encoded.dictionary.to_pylist())
    return listed, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _columns(rows: Rows, seed: int) -> Columns:
    n = len(rows)
    session = np.arange(n) if rows.session is None else renumbered(rows.session)
    blocks = rows.blocks
    if blocks is not None:
        # The trace's ids become this seed's: other seeds have other content with the same sharing.
        ids = RandomField(seed, "trace blocks").u64(blocks.flatten().to_numpy())
        blocks = blocks_of(block_counts(blocks), ids)
    return stateless(
        n,
        at_ns=rows.at_ns if rows.has_times else np.full(n, NO_TIME),
        session=session,
        turn=np.zeros(n, np.int64) if rows.session is None else turns_of(session),
        prompt_tokens=rows.prompt_tokens,
        output_tokens=rows.output_tokens,
        prefix_blocks=blocks,
        ordinal=np.zeros(n, np.int64) if rows.line is None else rows.line,
    )


def _following(columns: Columns, think_ns: Ints) -> Columns:
    """Later turns that wait lose their time and get their pause; rows stand session by session."""
    waits = (think_ns != NO_PAUSE) & (columns.turn > 0)
    columns = columns.with_(
        at_ns=np.where(waits, NO_TIME, columns.at_ns), think_ns=np.where(waits, np.maximum(think_ns, 0), 0)
    )
    starts = np.full(int(columns.session.max()) + 1, 0)
    first = columns.turn == 0
    starts[columns.session[first]] = columns.at_ns[first]
    order = np.lexsort((columns.turn, columns.session, starts[columns.session]))
    columns = columns.take(order)
    return columns.with_(session=renumbered(columns.session))
