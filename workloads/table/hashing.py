"""Fingerprints: of a plan's values, and of a workload without its seed and rate.

`plan_hash` pairs runs (the same requests at the same times); `workload_hash` makes runs comparable (the same
kind of requests). Neither depends on file bytes, the machine, or the versions of Parquet and Arrow.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.table.columns import PLAN_SCHEMA

GENERATOR: Final = "tailgate.plan/1"
"""Changes when the same spec and seed would give other rows."""

_WHOLE_FILE: Final = 64 << 20


def plan_hash(table: pa.Table) -> str:
    """32 hex digits over the values of all columns of a plan."""
    digest = hashlib.blake2b(GENERATOR.encode(), digest_size=16)
    digest.update(str(table.num_rows).encode())
    for field in PLAN_SCHEMA:
        digest.update(f"\x1e{field.name}\x1f".encode())
        for part in _values(table.column(field.name).combine_chunks()):
            digest.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else part)
    return digest.hexdigest()


def _values(array: Any) -> list[Any]:
    """The column as little-endian NumPy arrays and bytes that don't depend on how Arrow holds it."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else array.type.empty()
    if pa.types.is_dictionary(array.type):
        # Dictionaries may differ in order and in entries that no row uses: renumber by name.
        names = array.dictionary.to_pylist()
        codes = array.indices.to_numpy(zero_copy_only=False)
        used = sorted({names[code] for code in np.unique(codes).tolist()})
        place = np.array([used.index(name) if name in used else -1 for name in names] or [0], dtype="<i4")
        return [json.dumps(used).encode(), place[codes]]
    if pa.types.is_list(array.type):
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False).astype("<i4")
        return [lengths, array.flatten().to_numpy().astype("<u8", copy=False)]
    nulls = [] if array.null_count == 0 else [array.is_valid().to_numpy(zero_copy_only=False)]
    filled = array if array.null_count == 0 else array.fill_null(0)
    values = filled.to_numpy()
    return [*nulls, values.astype(values.dtype.newbyteorder("<"), copy=False)]


def canonical_hash(content: Any) -> str:
    """32 hex digits over JSON-like content, keys sorted."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(f"{GENERATOR}\n{text}".encode(), digest_size=16).hexdigest()


def file_digest(file: Path) -> str:
    """A digest of a file's content: whole up to 64 MiB; beyond, its size with its first and last 32 MiB.

    Of a folder: of the names and contents of the files in it. A UserError names a file that can't be read.
    """
    try:
        return _digest(file)
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", where=str(file)) from error


def _digest(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    if file.is_dir():
        for path in sorted(file.iterdir()):
            if path.is_file():
                digest.update(f"{path.name}\x1f{_digest(path)}\x1e".encode())
        return digest.hexdigest()
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE_FILE:
            digest.update(stream.read())
        else:
            digest.update(str(size).encode())
            digest.update(stream.read(_WHOLE_FILE // 2))
            stream.seek(-_WHOLE_FILE // 2, 2)
            digest.update(stream.read())
    return digest.hexdigest()
