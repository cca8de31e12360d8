"""A slice of a recorded trace as a plan's columns: order, slice, stamps on a grid, rate and speed.

What a file's bytes mean is of the formats' own modules; lengths against the context, hashes and prompts are
the plan's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.columns import DEFAULT, NO_TIME, Columns, block_counts, blocks_of, concatenate, stateless
from workloads.errors import UserError
from workloads.spec import TraceSpec
from workloads.streams import Field
from workloads.traces import azure, burstgpt, kvcachetester, mooncake, named, openai_log, ragpulse, servegen
from workloads.traces.rows import NO_PAUSE, Faults, Reader, Rows

Ints = npt.NDArray[np.int64]

_COARSE_NS: Final = 500_000_000
_GRID_ROWS: Final = 20


@dataclass(frozen=True)
class Replay:
    """A slice of a trace: its requests, and the names that its codes stand for.

    Requests with times of their own are in their order; those that follow their predecessor stand behind it.
    """

    columns: Columns
    classes: tuple[str, ...] = (DEFAULT,)
    tenants: tuple[str, ...] = (DEFAULT,)
    block_tokens: int | None = None
    has_times: bool = True
    notices: list[str] = field(default_factory=list)


def load(spec: TraceSpec, seed: int = 0) -> Replay:
    """The requests of the slice, with `at_ns` from the slice's start at the asked rate and speed.

    The slice's `start` counts from the trace's first row. Reading ends at the first piece that lies wholly
    behind the slice.

    Raises:
        UserError: no such file, broken rows, or nothing in the slice.
    """
    faults = Faults(spec.file, spec.skip_bad_rows)
    rows = _joined(_sliced(_reader(spec, seed, faults), spec))
    if rows is None:
        raise UserError(
            "it holds no requests" if not faults.skipped else "all its rows are broken", where=str(spec.file)
        )
    notices = faults.summary()
    rows = _answerable(rows, spec, notices)
    if rows.has_times:
        rows = _ordered(rows, spec, notices)
        rows = _spread(rows, spec, seed, notices)
    classes, class_code = _codes(rows.classes, len(rows))
    tenants, tenant_code = _codes(rows.tenants, len(rows))
    columns = _columns(rows, seed).with_(class_code=class_code, tenant_code=tenant_code)
    if rows.think_ns is not None and (rows.think_ns != NO_PAUSE).any():
        columns = _following(columns, rows.think_ns)
    if spec.rate is not None and spec.format != "servegen":
        columns, notice = _at_rate(columns, spec, seed)
        notices.append(notice)
    if spec.speed != 1.0:
        timed = columns.at_ns != NO_TIME
        columns = columns.with_(at_ns=np.where(timed, np.rint(columns.at_ns / spec.speed), NO_TIME).astype(np.int64))
    return Replay(columns, classes, tenants, rows.block_tokens, rows.has_times, notices)


def reader_of(spec: TraceSpec) -> Callable[[Path, Faults], Reader]:
    """The reader of a recorded format.

    Raises:
        UserError: the format needs columns to be named.
    """
    match spec.format:
        case "azure":
            return azure.read
        case "burstgpt":
            return burstgpt.read
        case "mooncake":
            return mooncake.read
        case "ragpulse":
            return ragpulse.read
        case "kv-cache-tester":
            return kvcachetester.read
        case "openai":
            return openai_log.read
        case "csv":
            return partial(named.read_csv, columns=spec.columns, unit=spec.time_unit)
        case "jsonl" | "parquet":
            return partial(
                named.read_records,
                columns=spec.columns,
                unit=spec.time_unit,
                block_tokens=spec.block_tokens,
                parquet=spec.format == "parquet",
            )
        case "auto":
            raise ValueError("the spec is not resolved")
        case "servegen":
            raise UserError("ServeGen holds clients, not requests", where="workload.trace.format")


def _reader(spec: TraceSpec, seed: int, faults: Faults) -> Reader:
    if spec.format == "servegen":
        if spec.duration is None:
            raise UserError("ServeGen's clients go on for days: say how long", where="workload.trace.duration")
        yield servegen.generate(spec.file, faults, seed, spec.start, spec.duration, spec.rate)
    else:
        yield from reader_of(spec)(spec.file, faults)


def _sliced(reader: Reader, spec: TraceSpec) -> Iterator[Rows]:
    """The pieces cut to the slice, times from its start; ends early where all that follows is later."""
    if spec.format == "servegen":
        yield from reader
        return
    begin_ns = round(spec.start * 1e9)
    end_ns = None if spec.duration is None else begin_ns + round(spec.duration * 1e9)
    origin: int | None = None
    latest, kept = 0, 0
    for rows in reader:
        if not len(rows):
            continue
        if not rows.has_times:
            if begin_ns or end_ns is not None:
                raise UserError("a trace without times can't be cut by time", where="workload.trace.start")
            kept += len(rows)
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
        kept += len(piece)
        yield _moved(piece, origin + begin_ns)
    if origin is not None and not kept:
        raise UserError(
            f"the slice from {spec.start:g} s" + (f" for {spec.duration:g} s" if spec.duration else "") + " is empty",
            where=str(spec.file),
            remedy=f"The trace holds {latest / 1e9:,.1f} s",
        )


def _moved(rows: Rows, by_ns: int) -> Rows:
    from dataclasses import replace

    return replace(rows, at_ns=rows.at_ns - by_ns)


def _joined(pieces: Iterator[Rows]) -> Rows | None:
    parts = [rows for rows in pieces if len(rows)]
    if not parts:
        return None

    def join(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        if any(column is None for column in columns):
            return None
        return np.concatenate(columns) if isinstance(columns[0], np.ndarray) else pa.concat_arrays(columns)

    names = (
        "at_ns",
        "prompt_tokens",
        "output_tokens",
        "session",
        "think_ns",
        "blocks",
        "classes",
        "tenants",
        "failed",
        "line",
    )
    joined = {name: join(name) for name in names}
    return Rows(**joined, block_tokens=parts[0].block_tokens, has_times=parts[0].has_times)


def _answerable(rows: Rows, spec: TraceSpec, notices: list[str]) -> Rows:
    """Without requests of unknown length; a request without an answer asks for one token."""
    from dataclasses import replace

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
    """By time. Steps that follow their predecessor are counted within their session only."""
    waits = np.zeros(len(rows), bool) if rows.think_ns is None else rows.think_ns != NO_PAUSE
    own = rows.at_ns[~waits]
    backwards = int((np.diff(own) < 0).sum())
    if not backwards or waits.any():
        return rows
    notices.append(f"{spec.file.name}: the clock went backwards {backwards:,} times; rows are sorted by time")
    return _reordered(rows, np.argsort(rows.at_ns, kind="stable"))


def _reordered(rows: Rows, order: Ints) -> Rows:
    chosen: dict[str, Any] = {}
    for name in ("at_ns", "prompt_tokens", "output_tokens", "session", "think_ns", "failed", "line"):
        column = getattr(rows, name)
        chosen[name] = None if column is None else column[order]
    index = pa.array(order)
    for name in ("blocks", "classes", "tenants"):
        column = getattr(rows, name)
        chosen[name] = None if column is None else column.take(index)
    return Rows(**chosen, block_tokens=rows.block_tokens, has_times=rows.has_times)


def _spread(rows: Rows, spec: TraceSpec, seed: int, notices: list[str]) -> Rows:
    """Stamps that all lie on a coarse grid (Mooncake: 3 s, BurstGPT: 1 s), spread evenly within it.

    Otherwise all arrivals of a tick would come at once, and any burstiness measured would be the grid's.
    """
    from dataclasses import replace

    waits = np.zeros(len(rows), bool) if rows.think_ns is None else rows.think_ns != NO_PAUSE
    if not spec.spread or waits.any() or len(rows) < _GRID_ROWS:
        return rows
    gaps = np.diff(rows.at_ns)
    grid = int(gaps[gaps > 0].min()) if (gaps > 0).any() else 0
    # Mooncake's ticks are 3 s apart to a few ms; sparse arrivals without a tie are on a grid only if all fit one.
    ticks = grid >= _COARSE_NS and ((gaps == 0).any() or int(np.gcd.reduce(gaps)) >= _COARSE_NS)
    if not ticks:
        return rows
    notices.append(f"{spec.file.name}: its stamps lie on a {grid / 1e9:.3g} s grid; they are spread evenly within it")
    u = Field(seed, "spread").uniform(np.arange(len(rows)))
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
    session = np.arange(n) if rows.session is None else _renumbered(rows.session)
    blocks = rows.blocks
    if blocks is not None:
        # The trace's ids become this seed's: other seeds have other content with the same sharing.
        ids = Field(seed, "trace blocks").u64(blocks.flatten().to_numpy())
        blocks = blocks_of(block_counts(blocks), ids)
    return stateless(
        n,
        at_ns=rows.at_ns if rows.has_times else np.full(n, NO_TIME),
        session=session,
        turn=np.zeros(n, np.int64) if rows.session is None else _turns(session),
        prompt_tokens=rows.prompt_tokens,
        output_tokens=rows.output_tokens,
        prefix_blocks=blocks,
        ordinal=np.zeros(n, np.int64) if rows.line is None else rows.line,
    )


def _renumbered(session: Ints) -> Ints:
    """Sessions numbered by their first row."""
    _, first, inverse = np.unique(session, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    numbers: Ints = rank[inverse]
    return numbers


def _turns(session: Ints) -> Ints:
    """0, 1, ... within each session, in the order of the rows."""
    order = np.argsort(session, kind="stable")
    ordered = session[order]
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    place = np.arange(len(session))
    turns = np.empty(len(session), np.int64)
    turns[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
    return turns


def _following(columns: Columns, think_ns: Ints) -> Columns:
    """Later turns lose their time and get their pause; rows stand session by session."""
    waits = (think_ns != NO_PAUSE) & (columns.turn > 0)
    columns = columns.with_(
        at_ns=np.where(waits, NO_TIME, columns.at_ns), think_ns=np.where(waits, np.maximum(think_ns, 0), 0)
    )
    starts = np.full(int(columns.session.max()) + 1, 0)
    first = columns.turn == 0
    starts[columns.session[first]] = columns.at_ns[first]
    order = np.lexsort((columns.turn, columns.session, starts[columns.session]))
    columns = columns.take(order)
    return columns.with_(session=_renumbered(columns.session))


def _at_rate(columns: Columns, spec: TraceSpec, seed: int) -> tuple[Columns, str]:
    """The asked mean rate, by leaving out sessions, by laying shifted copies over, or by speed."""
    rate = spec.rate or 0.0
    timed = columns.at_ns[columns.at_ns != NO_TIME]
    span_s = spec.duration or float(timed.max() - timed.min()) / 1e9 if len(timed) else 0.0
    if not span_s:
        raise UserError("a trace without times, or with one, has no rate to change", where="workload.trace.rate")
    own = len(timed) / span_s
    ratio = rate / own
    way = spec.rate_by if spec.rate_by != "auto" else ("thin" if ratio <= 1 else "superpose")
    what = f"{spec.file.name}: {own:.4g} requests/s became {rate:.4g}"
    match way:
        case "speed":
            at_ns = np.where(columns.at_ns != NO_TIME, np.rint(columns.at_ns / ratio), NO_TIME).astype(np.int64)
            return columns.with_(at_ns=at_ns), f"{what} by a speed of {ratio:.4g}"
        case "thin":
            if ratio > 1:
                raise UserError(
                    f"its slice has {own:.4g} requests/s: leaving some out can't give {rate:.4g}",
                    where="workload.trace.rate_by",
                    remedy="Use superpose or speed",
                )
            return _thinned(columns, ratio, seed, 0), f"{what} by leaving out sessions at random"
        case _:
            copies = [_copy(columns, k, round(span_s * 1e9), seed) for k in range(int(ratio))]
            last = int(ratio)
            if ratio > last:
                copies.append(_thinned(_copy(columns, last, round(span_s * 1e9), seed), ratio - last, seed, last))
            return _merged(copies), f"{what} by laying {ratio:.4g} copies over each other, shifted in time"


def _thinned(columns: Columns, share: float, seed: int, copy: int) -> Columns:
    keep = Field(seed, "thin", copy).uniform(columns.session) < share
    if not keep.any():
        raise UserError("nothing is left of the trace at this rate", where="workload.trace.rate")
    return columns.take(keep)


def _copy(columns: Columns, k: int, span_ns: int, seed: int) -> Columns:
    """The slice turned around in time by a random shift, with sessions and content of its own; copy 0 is itself."""
    if k == 0:
        return columns
    shift = int(Field(seed, "shift").uniform(np.array([k]))[0] * span_ns)
    timed = columns.at_ns != NO_TIME
    moved = (np.where(timed, columns.at_ns, 0) + shift) % span_ns
    blocks = columns.prefix_blocks
    if blocks is not None:
        blocks = blocks_of(block_counts(blocks), Field(seed, "copy", k).u64(blocks.flatten().to_numpy()))
    return columns.with_(at_ns=np.where(timed, moved, NO_TIME), prefix_blocks=blocks)


def _merged(copies: list[Columns]) -> Columns:
    offset, parts = 0, []
    for copy in copies:
        parts.append(copy.with_(session=copy.session + offset))
        offset += int(copy.session.max()) + 1
    joined = concatenate(parts)
    timed = joined.at_ns != NO_TIME
    if timed.all():
        joined = joined.take(np.argsort(joined.at_ns, kind="stable"))
        # A session that was turned around the slice's end begins with its former later turns.
        session = _renumbered(joined.session)
        return joined.with_(session=session, turn=_turns(session))
    anchor = np.maximum.accumulate(np.where(timed, np.arange(len(joined)), 0))
    joined = joined.take(np.argsort(joined.at_ns[anchor], kind="stable"))
    return joined.with_(session=_renumbered(joined.session))
