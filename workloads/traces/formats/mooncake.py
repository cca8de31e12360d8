"""Mooncake: `{"timestamp": ms, "input_length", "output_length", "hash_ids": [one a 512-token block]}` a line.

All stamps of the conversation trace lie on a 3 s grid; `replay` spreads them and says so.
Qin et al., "Mooncake", FAST 2025, github.com/kvcache-ai/Mooncake, Apache-2.0.
"""

from pathlib import Path
from typing import Any, Final

from tailgate.workloads.table.columns import block_counts
from tailgate.workloads.traces.formats.records import (
    BadValueError,
    Request,
    block_ids,
    number,
    parsed,
    pieces,
    records,
    tokens,
)
from tailgate.workloads.traces.rows import Faults, Reader

BLOCK_TOKENS: Final = 512


def read(file: Path, faults: Faults) -> Reader:
    requests, without = 0, 0
    for rows in pieces(parsed(records(file, faults), faults, _request), BLOCK_TOKENS):
        requests += len(rows)
        without += 0 if rows.blocks is None else int((block_counts(rows.blocks) == 0).sum())
        yield rows
    if without:
        faults.notices.append(
            f"{file.name}: {without:,} of {requests:,} requests have no hash_ids: they share no prefix with others"
        )


def _request(record: dict[str, Any]) -> Request:
    blocks = block_ids(record, "hash_ids") if "hash_ids" in record else []
    prompt_tokens = tokens(record, "input_length", least=1)
    if blocks and len(blocks) != -(-prompt_tokens // BLOCK_TOKENS):
        raise BadValueError(f"{len(blocks)} hash_ids for {prompt_tokens} tokens in blocks of {BLOCK_TOKENS}")
    return Request(
        at_ns=round(number(record, "timestamp") * 1e6),
        prompt_tokens=prompt_tokens,
        output_tokens=tokens(record, "output_length"),
        blocks=blocks,
    )
