"""Fingerprints: of a plan's values, and of a workload without its seed and rate.

`plan_hash` pairs runs (the same requests at the same times); `workload_hash` makes runs comparable (the same
kind of requests). Neither depends on file bytes, the machine, or the versions of Parquet and Arrow.
"""

import hashlib
import json
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tailgate.workloads.table.columns import PLAN_SCHEMA

GENERATOR: Final = "tailgate.plan/1"
"""Changes when the same spec and seed would give other rows."""


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
        import pyarrow.compute as pc

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
