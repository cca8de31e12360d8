"""CSV: one line per planned request with its figures, for a spreadsheet. Times in ms."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.catalogue import PER_REQUEST

_COLUMNS = (
    "index", "session", "turn", "class", "tenant", "phase", "endpoint", "status", "http_status", "error", "request_id",
    "prompt_tokens_planned", "prompt_tokens", "cached_tokens", "output_tokens_planned", "output_tokens", "chunks",
    "finish_reason",
)  # fmt: skip


def requests_csv(analysis: Analysis) -> str:
    """Every row of `requests.parquet` beside its TTFT, TPOT, stall, E2E and whether it was good."""
    table = analysis.run.requests.select(list(_COLUMNS))
    for name in ("class", "tenant", "phase"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.string()))
    scheduled = analysis.run.column("scheduled_ns") / 1e6
    for name, values in {"scheduled_ms": scheduled, **{f"{n}_ms": analysis.figures.ms[n] for n in PER_REQUEST}}.items():
        table = table.append_column(name, pa.array(np.round(values, 3), from_pandas=True))
    table = table.append_column("good", pa.array(analysis.good))
    sink = io.BytesIO()
    pacsv.write_csv(table, sink)
    return sink.getvalue().decode()
