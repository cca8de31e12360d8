"""BurstGPT 1 and 3: `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`, a row a request.

Version 3 inserts `Session ID` (empty on rows of the API) and `Elapsed time` (whole seconds, end to end).
A row with 0 response tokens is a failure. Times are seconds, on a 1 s clock in version 1.
Wang et al., "BurstGPT", KDD 2025, github.com/HPMLL/BurstGPT, CC-BY-4.0.
"""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from tailgate.workloads.traces.formats.csv_stream import batches, header, seconds_ns, whole_numbers
from tailgate.workloads.traces.rows import Faults, Reader, Rows, SessionNumbers

_COLUMNS = ["Timestamp", "Model", "Request tokens", "Response tokens", "Log Type"]
_SESSION = "Session ID"


def read(file: Path, faults: Faults) -> Reader:
    """All requests, the failed ones too (they are marked); the class is model and log type."""
    sessions = SessionNumbers()
    wanted = [*_COLUMNS, _SESSION] if _SESSION in header(file) else _COLUMNS
    for batch in batches(file, wanted, faults):
        at_ns, good = seconds_ns(batch, "Timestamp", faults)
        prompt, good_prompt = whole_numbers(batch, "Request tokens", faults)
        output, good_output = whole_numbers(batch, "Response tokens", faults)
        # "GPT-4", "Conversation log" -> "GPT-4 conversation"
        kind = pc.utf8_lower(pc.replace_substring(batch.columns["Log Type"], " log", ""))
        yield Rows(
            at_ns,
            prompt,
            output,
            session=sessions.of(batch.columns[_SESSION].to_pylist()) if _SESSION in wanted else None,
            classes=pc.binary_join_element_wise(batch.columns["Model"], kind, " "),
            failed=np.asarray(output == 0),
        ).take(good & good_prompt & good_output)
