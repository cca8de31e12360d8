"""Mooncake: `{"timestamp": ms, "input_length", "output_length", "hash_ids": [one a 512-token block]}` a line.

All stamps of the conversation trace lie on a 3 s grid; `replay` spreads them and says so.
Qin et al., "Mooncake", FAST 2025, github.com/kvcache-ai/Mooncake, Apache-2.0.
"""

from pathlib import Path
from typing import Any, Final

from tailgate.workloads.traces.formats.records import (
    BadValueError,
    Request,
    number,
    parsed,
    pieces,
    records,
    tokens,
    value,
)
from tailgate.workloads.traces.rows import Faults, Reader

BLOCK_TOKENS: Final = 512


def read(file: Path, faults: Faults) -> Reader:
    return pieces(parsed(records(file, faults), faults, _request), BLOCK_TOKENS)


def _request(record: dict[str, Any]) -> Request:
    blocks = value(record, "hash_ids")
    if not isinstance(blocks, list) or not all(isinstance(b, int) and b >= 0 for b in blocks):
        raise BadValueError(f"hash_ids {str(blocks)[:60]!r} is not a list of block ids")
    prompt_tokens = tokens(record, "input_length", least=1)
    if blocks and len(blocks) != -(-prompt_tokens // BLOCK_TOKENS):
        raise BadValueError(f"{len(blocks)} hash_ids for {prompt_tokens} tokens in blocks of {BLOCK_TOKENS}")
    return Request(
        at_ns=round(number(record, "timestamp") * 1e6),
        prompt_tokens=prompt_tokens,
        output_tokens=tokens(record, "output_length"),
        blocks=blocks,
    )
