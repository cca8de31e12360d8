"""A table as CSV for a spreadsheet, in which no text of others acts: the one place that writes this format."""

import io
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from tailgate.workloads.common.formatting import visible

# A spreadsheet takes a cell for a formula that begins like one, also behind white space and in wide characters.
_FORMULA: Final = r"^(\s*[=+\-@\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}])"


def csv(table: pa.Table) -> str:
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(place, field.name, _harmless(table[field.name]))
    sink = io.BytesIO()
    pacsv.write_csv(table, sink)
    return sink.getvalue().decode()


def _harmless(column: pa.ChunkedArray) -> pa.Array:
    """Texts that a spreadsheet shows as they are; one that begins like a formula has an apostrophe before it."""
    each = column.combine_chunks().dictionary_encode()
    texts = pa.array([visible(text) for text in each.dictionary.to_pylist()], pa.string())
    return pc.replace_substring_regex(texts, _FORMULA, r"'\1").take(each.indices)
