"""Rows from records read one by one, in pieces of a bounded size: for formats that are not columns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

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


@dataclass
class _Piece:
    requests: list[Request] = field(default_factory=list)

    def rows(self, block_tokens: int | None) -> Rows:
        def ints(name: str) -> Any:
            return np.array([getattr(r, name) for r in self.requests], dtype=np.int64)

        def strings(name: str) -> Any:
            values = [getattr(r, name) for r in self.requests]
            return None if all(v is None for v in values) else pa.array([v or "" for v in values])

        blocks = None
        if block_tokens is not None:
            lengths = np.array([len(r.blocks) for r in self.requests], dtype=np.int64)
            flat = [np.asarray(r.blocks, dtype=np.uint64) for r in self.requests if len(r.blocks)]
            blocks = blocks_of(lengths, np.concatenate(flat) if flat else np.empty(0, np.uint64))
        has_sessions = any(r.session is not None for r in self.requests)
        return Rows(
            ints("at_ns"),
            ints("prompt_tokens"),
            ints("output_tokens"),
            session=ints("session") if has_sessions else None,
            think_ns=ints("think_ns"),
            blocks=blocks,
            block_tokens=block_tokens,
            classes=strings("class_name"),
            tenants=strings("tenant"),
            failed=np.array([r.failed for r in self.requests], dtype=bool),
            line=ints("line"),
        )


def pieces(requests: Iterable[Request], block_tokens: int | None = None) -> Iterator[Rows]:
    """The requests as Rows of at most 50,000 each."""
    piece = _Piece()
    for request in requests:
        piece.requests.append(request)
        if len(piece.requests) >= _PIECE:
            yield piece.rows(block_tokens)
            piece = _Piece()
    if piece.requests:
        yield piece.rows(block_tokens)
