"""Rows from records read one by one, in pieces of a bounded size: for formats that are not columns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.table.columns import blocks_of
from tailgate.workloads.traces.rows import NO_PAUSE, Rows

_PIECE: Final = 50_000


@dataclass
class Request:
    """One request of a trace."""

    at_ns: int
    prompt_tokens: int
    output_tokens: int
    session: int | None = None
    think_ns: int = NO_PAUSE
    blocks: Any = ()
    class_name: str | None = None
    tenant: str | None = None
    failed: bool = False
    line: int = 0


def pieces(requests: Iterable[Request], block_tokens: int | None = None) -> Iterator[Rows]:
    """The requests as Rows of at most 50,000 each."""
    remaining = iter(requests)
    while piece := list(islice(remaining, _PIECE)):
        yield _rows(piece, block_tokens)


def _rows(requests: list[Request], block_tokens: int | None) -> Rows:
    def ints(name: str) -> Ints:
        return np.array([getattr(request, name) for request in requests], dtype=np.int64)

    def strings(name: str) -> Any:
        values = [getattr(request, name) for request in requests]
        return None if all(value is None for value in values) else pa.array([value or "" for value in values])

    blocks = None
    if block_tokens is not None:
        lengths = np.array([len(request.blocks) for request in requests], dtype=np.int64)
        flat = [np.asarray(request.blocks, dtype=np.uint64) for request in requests if len(request.blocks)]
        blocks = blocks_of(lengths, np.concatenate(flat) if flat else np.empty(0, np.uint64))
    return Rows(
        ints("at_ns"),
        ints("prompt_tokens"),
        ints("output_tokens"),
        session=ints("session") if any(request.session is not None for request in requests) else None,
        think_ns=ints("think_ns"),
        blocks=blocks,
        block_tokens=block_tokens,
        classes=strings("class_name"),
        tenants=strings("tenant"),
        line=ints("line"),
        failed=np.array([request.failed for request in requests], dtype=bool),
    )
