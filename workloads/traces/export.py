"""Requests written in another format: `mooncake`, `azure`, or plain `csv`, `jsonl` and `parquet` with all columns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.table.columns import NO_TIME, empty_blocks
from tailgate.workloads.traces.formats import mooncake
from tailgate.workloads.traces.replay import Replay
from tailgate.workloads.traces.rescale import renumbered

# What reads the plain formats back in: `columns` and `time_unit: s` of a TraceSpec.
NAMES: Final = {
    "time": "time_s",
    "prompt_tokens": "prompt_tokens",
    "output_tokens": "output_tokens",
    "session": "session",
    "think": "think_s",
    "class": "class",
    "tenant": "tenant",
}
_BEGIN: Final = np.datetime64("2024-01-01T00:00:00.000000")
_AT_ONCE: Final = 20_000


def export(replay: Replay, path: Path, format: str) -> list[str]:
    """Write all requests and return notices of what the format can't hold."""
    if format not in FORMATS:
        raise UserError(f"can't write {format!r}", where="--to", remedy=f"It writes: {', '.join(FORMATS)}")
    timed = bool((replay.columns.at_ns != NO_TIME).all()) and replay.has_times
    if not timed and format in ("mooncake", "azure"):
        raise UserError(
            f"{format} needs a time for every request, and some follow their predecessor or have none", where="--to"
        )
    block = replay.block_tokens
    if format == "mooncake" and replay.columns.prefix_blocks is not None and block != mooncake.BLOCK_TOKENS:
        raise UserError(
            f"mooncake's blocks have {mooncake.BLOCK_TOKENS} tokens each, the trace's {block}",
            where="--to",
            remedy="Write jsonl or parquet, and name `block_tokens` where it is read",
        )
    try:
        FORMATS[format](replay, path)
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=str(path)) from error
    return _lost(replay, format)


def _lost(replay: Replay, format: str) -> list[str]:
    columns, lost = replay.columns, []
    if format in ("azure", "csv") and columns.prefix_blocks is not None:
        lost.append(f"{format} holds no prefix blocks: what prompts share is lost")
    if format in ("azure", "mooncake") and (columns.turn > 0).any():
        lost.append(f"{format} holds no sessions")
    return lost


def _mooncake(replay: Replay, path: Path) -> None:
    columns = replay.columns
    blocks = columns.prefix_blocks if columns.prefix_blocks is not None else empty_blocks(len(columns))
    # Ids are counted from 0 in order of appearance.
    ids = pa.ListArray.from_arrays(blocks.offsets, pa.array(renumbered(blocks.flatten().to_numpy())))
    data = {
        "timestamp": columns.at_ns // 1_000_000,
        "input_length": columns.prompt_tokens,
        "output_length": columns.output_tokens,
        "hash_ids": ids,
    }
    _write_lines(pa.table(data), path)


def _azure(replay: Replay, path: Path) -> None:
    columns = replay.columns
    with path.open("w", encoding="utf-8") as stream:
        stream.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for begin in range(0, len(columns), _AT_ONCE):
            rows = slice(begin, begin + _AT_ONCE)
            stamps = _BEGIN + (columns.at_ns[rows] // 1000).astype("timedelta64[us]")
            texts = np.char.replace(np.datetime_as_string(stamps, unit="us"), "T", " ").tolist()
            lengths = zip(
                texts, columns.prompt_tokens[rows].tolist(), columns.output_tokens[rows].tolist(), strict=True
            )
            stream.writelines(f"{stamp},{prompt},{output}\n" for stamp, prompt, output in lengths)


def _table(replay: Replay, *, blocks: bool) -> pa.Table:
    columns = replay.columns
    waits = columns.at_ns == NO_TIME
    data: dict[str, Any] = {
        "time_s": pa.array(columns.at_ns / 1e9, mask=waits),
        "session": columns.session,
        "turn": columns.turn,
        "think_s": columns.think_ns / 1e9,
        "class": np.array(replay.classes, dtype=object)[columns.class_code],
        "tenant": np.array(replay.tenants, dtype=object)[columns.tenant_code],
        "prompt_tokens": columns.prompt_tokens,
        "output_tokens": columns.output_tokens,
    }
    if blocks and columns.prefix_blocks is not None:
        data["blocks"] = columns.prefix_blocks
    return pa.table(data)


def _csv(replay: Replay, path: Path) -> None:
    from pyarrow import csv

    csv.write_csv(_table(replay, blocks=False), path)


def _jsonl(replay: Replay, path: Path) -> None:
    _write_lines(_table(replay, blocks=True), path)


def _write_lines(table: pa.Table, path: Path) -> None:
    with path.open("wb") as stream:
        for batch in table.to_batches(max_chunksize=_AT_ONCE):
            stream.writelines(orjson.dumps(record) + b"\n" for record in batch.to_pylist())


def _parquet(replay: Replay, path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(_table(replay, blocks=True), path, compression="zstd")


FORMATS: Final[dict[str, Callable[[Replay, Path], None]]] = {
    "mooncake": _mooncake, "azure": _azure, "csv": _csv, "jsonl": _jsonl, "parquet": _parquet,
}  # fmt: skip
