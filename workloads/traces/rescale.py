"""A trace at another mean rate: by leaving out sessions, adding shifted copies of it, or another speed."""

from typing import Final

import numpy as np

from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import TraceSpec
from tailgate.workloads.sampling.random_streams import RandomField
from tailgate.workloads.table.columns import (
    NO_TIME,
    Columns,
    block_counts,
    blocks_of,
    check_size,
    concatenate,
    last_timed,
)

_FEW: Final = 20


def at_speed(columns: Columns, speed: float) -> Columns:
    if speed == 1.0:
        return columns
    at_ns = np.where(columns.at_ns != NO_TIME, np.rint(columns.at_ns / speed), NO_TIME).astype(np.int64)
    return columns.with_(at_ns=at_ns, think_ns=np.rint(columns.think_ns / speed).astype(np.int64))


def at_rate(columns: Columns, spec: TraceSpec, seed: int) -> tuple[Columns, str]:
    """The columns at the mean rate asked for, by leaving out sessions, adding shifted copies, or another speed."""
    rate = spec.rate or 0.0
    timed = columns.at_ns[columns.at_ns != NO_TIME]
    length_s = None if spec.duration is None else spec.duration / spec.speed
    span_s = length_s or float(timed.max() - timed.min()) / 1e9 if len(timed) else 0.0
    if not span_s:
        raise UserError("a trace with fewer than two times has no rate to change", where="workload.trace.rate")
    own = len(timed) / span_s
    ratio = rate / own
    way = spec.rate_by if spec.rate_by != "auto" else ("thin" if ratio <= 1 else "superpose")
    what = f"{spec.file.name}: {own:.4g} requests/s became {rate:.4g}"
    match way:
        case "speed":
            return at_speed(columns, ratio), f"{what} by a speed of {ratio:.4g}"
        case "thin":
            if ratio > 1:
                raise UserError(
                    f"its slice has {own:.4g} requests/s: leaving some out can't give {rate:.4g}",
                    where="workload.trace.rate_by",
                    remedy="Use superpose or speed",
                )
            return _thinned(columns, ratio, seed, 0), f"{what} by leaving out {_left_out(columns)} at random"
        case _:
            check_size(int(len(columns) * ratio))
            copies = [_copy(columns, k, round(span_s * 1e9), seed) for k in range(int(ratio))]
            last = int(ratio)
            if ratio > last:
                copies.append(_thinned(_copy(columns, last, round(span_s * 1e9), seed), ratio - last, seed, last))
            return _merged(copies), f"{what} by laying {ratio:.4g} copies over each other, shifted in time"


def _thinned(columns: Columns, share: float, seed: int, copy: int) -> Columns:
    keep = RandomField(seed, "thin", copy).uniform(_thinning_groups(columns)) < share
    if not keep.any():
        raise UserError("nothing is left of the trace at this rate", where="workload.trace.rate")
    return columns.take(keep)


def _left_out(columns: Columns) -> str:
    if (columns.turn > 0).any():
        return "sessions"
    return "requests" if columns.prefix_blocks is None else "all requests of a prefix (it names no sessions)"


def _thinning_groups(columns: Columns) -> Ints:
    """For each request the group with which it is left out: its session, or the requests that begin alike.

    Where no sessions are known, these are the requests with the same first block, or, where one in a hundred or more
    has that block (a system prompt), with the same second, and so on: leaving out single requests would change how much
    the others share.
    """
    if (columns.turn > 0).any() or columns.prefix_blocks is None:
        return columns.session
    counts, ids = block_counts(columns.prefix_blocks), columns.prefix_blocks.flatten().to_numpy()
    begins = np.cumsum(counts) - counts
    most = max(_FEW, len(columns) // 100)
    group, left, depth = columns.session.copy(), np.arange(len(columns)), 0
    while len(left := left[counts[left] > depth]):
        _, first, inverse, sizes = np.unique(
            ids[begins[left] + depth], return_index=True, return_inverse=True, return_counts=True
        )
        few = sizes[inverse] <= most
        group[left[few]] = columns.session[left[first[inverse[few]]]]
        left, depth = left[~few], depth + 1
    return group


def _copy(columns: Columns, k: int, span_ns: int, seed: int) -> Columns:
    """The slice rotated in time by a random shift, with content of its own; copy 0 is the slice itself."""
    if k == 0:
        return columns
    shift = int(RandomField(seed, "shift").uniform(np.array([k]))[0] * span_ns)
    timed = columns.at_ns != NO_TIME
    moved = (np.where(timed, columns.at_ns, 0) + shift) % span_ns
    blocks = columns.prefix_blocks
    if blocks is not None:
        blocks = blocks_of(block_counts(blocks), RandomField(seed, "copy", k).u64(blocks.flatten().to_numpy()))
    return columns.with_(at_ns=np.where(timed, moved, NO_TIME), prefix_blocks=blocks)


def _merged(copies: list[Columns]) -> Columns:
    offset, parts = 0, []
    for copy in copies:
        parts.append(copy.with_(session=copy.session + offset))
        offset += int(copy.session.max()) + 1
    joined = concatenate(parts)
    if (joined.at_ns != NO_TIME).all():
        joined = joined.take(np.argsort(joined.at_ns, kind="stable"))
        # A session that was rotated across the slice's end begins with its former later turns.
        session = renumbered(joined.session)
        return joined.with_(session=session, turn=turns_of(session))
    joined = joined.take(np.argsort(joined.at_ns[last_timed(joined.at_ns)], kind="stable"))
    return joined.with_(session=renumbered(joined.session))


def renumbered(session: Ints) -> Ints:
    """Sessions numbered by their first row."""
    _, first, inverse = np.unique(session, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return np.asarray(rank[inverse])


def turns_of(session: Ints) -> Ints:
    """0, 1, ... within each session, in the order of the rows."""
    order = np.argsort(session, kind="stable")
    ordered = session[order]
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    place = np.arange(len(session))
    turns = np.empty(len(session), np.int64)
    turns[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
    return turns
