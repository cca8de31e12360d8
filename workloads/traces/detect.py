"""Which format a trace has, from its name and its first lines, where the person didn't say."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.json_text import json_of
from tailgate.workloads.config.workload import TraceSpec, explain
from tailgate.workloads.traces.formats.csv_stream import beginning, header
from tailgate.workloads.traces.formats.parquet_records import parquet_types

_HOW = "Say which: format (--trace-format) azure, burstgpt, mooncake, ..., or csv, jsonl or parquet with columns named"


def with_format(spec: TraceSpec) -> TraceSpec:
    """The same with its format detected from the file where it is `auto`."""
    if spec.format != "auto":
        return spec
    format = guess_format(spec.file, named=bool(spec.columns))
    try:  # checked again: what is set may not be for this format
        return TraceSpec.model_validate(spec.model_dump() | {"format": format})
    except ValidationError as error:
        raise explain(error, f"{spec.file} ({format})") from error


def guess_format(file: Path, *, named: bool = False) -> str:
    """The name of the format; with `named`, the person has named columns, so it is one of the plain formats."""
    if file.is_dir():
        if any(file.glob("chunk-*-trace.csv*")):
            return "servegen"
        if any(file.glob("*.json")) or any(file.glob("*.json.gz")):
            return "kv-cache-tester"
        raise UserError("the folder doesn't look like a trace of a known format", where=str(file), remedy=_HOW)
    name = file.name.removesuffix(".gz")
    if name.endswith((".parquet", ".pq")):
        if not named:
            raise _unnamed(file)
        return "parquet"
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return _of_json(file, named=named)
    if named:
        return "csv"
    columns = header(file)
    if {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= set(columns):
        return "azure"
    if {"Timestamp", "Request tokens", "Response tokens"} <= set(columns):
        return "burstgpt"
    raise UserError(
        f"the trace's format isn't known; it has the columns {', '.join(columns)}", where=str(file), remedy=_HOW
    )


def _unnamed(file: Path) -> UserError:
    """A Parquet file whose columns must be named, if it has any with counts of tokens."""
    types = parquet_types(file)
    if any(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types.values()):
        what = f"the columns of a Parquet file must be named; it has: {', '.join(types)}"
        how = "Name them (--columns): prompt_tokens=COLUMN, output_tokens=COLUMN, time=COLUMN, ..."
    else:
        what = f"it has no column of numbers, and so no token counts; it has: {', '.join(types)}"
        how = "Add a column for the tokens of the prompts and one for those of the answers, and name them (--columns)."
    return UserError(what, where=str(file), remedy=how)


def _of_json(file: Path, *, named: bool) -> str:
    start = beginning(file, 1 << 20)
    if start.lstrip()[:1] == b"{" and b'"block_size"' in start and b'"requests"' in start:
        return "kv-cache-tester"
    if named:
        return "jsonl"
    line = next((line for line in start.splitlines() if line.strip()), b"")
    try:
        record: Any = json_of(line)
    except ValueError:
        record = None
    if isinstance(record, dict):
        if "input_length" in record:
            return "ragpulse" if isinstance(record.get("hash_ids"), dict) else "mooncake"
        if b'"usage"' in line or b'"error"' in line:
            return "openai"
    has = f"; its first record has: {', '.join(list(record)[:12])}" if isinstance(record, dict) else ""
    raise UserError(f"the trace's format isn't known{has}", where=str(file), remedy=_HOW)
