"""Runs of users' own locustfiles: what was asked for becomes the plan, and their verdicts become statuses.

Such a run has no plan beforehand. The injectors wrote down each request as it was asked for; its prompt's length is
what the server counted.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tailgate.loadgen.records import LOCUSTFILE_REQUEST_SCHEMA, LOCUSTFILE_VERDICT_SCHEMA, Status
from tailgate.reports.rundir.spool import spool_files, whole_batches
from tailgate.workloads.table.columns import PLAN_SCHEMA


def plan_of_asked(run_dir: Path, reported: Any) -> Any | None:
    """The rows that users asked for, in the plan's schema, sorted by index; None if the run had a plan."""
    files = spool_files(run_dir, "asked")
    if not files:
        return None
    batches = [batch for path in files.values() for batch in whole_batches(path)]
    asked = pa.Table.from_batches(batches, LOCUSTFILE_REQUEST_SCHEMA).sort_by("index")
    rows = asked.num_rows
    lengths = reported.select(["index", "prompt_tokens", "output_tokens"])
    place = np.searchsorted(lengths["index"].to_numpy(), asked["index"].to_numpy())
    was_reported = np.isin(asked["index"].to_numpy(), lengths["index"].to_numpy())
    at = pa.array(np.where(was_reported, place, 0), mask=~was_reported)

    def counted(name: str) -> Any:
        return pc.fill_null(lengths[name].take(at) if lengths.num_rows else pa.nulls(rows, pa.int64()), 0)

    columns = {
        "index": asked["index"],
        "at_ns": pa.nulls(rows, pa.int64()),
        "session": asked["session"],
        "turn": asked["turn"],
        "think_ns": pa.array(np.zeros(rows, np.int64)),
        "class": pc.dictionary_encode(asked["class"]),
        "tenant": _same("default", rows),
        "priority": pa.array(np.zeros(rows, np.int32)),
        "prompt_tokens": counted("prompt_tokens"),
        "output_tokens": pc.coalesce(asked["output_tokens"].cast(pa.int64()), counted("output_tokens")),
        "prefix_blocks": pa.array([[]] * rows, PLAN_SCHEMA.field("prefix_blocks").type),
        "content_seed": pa.array(np.zeros(rows, np.uint64)),
        "phase": _same("measure", rows),
    }
    return pa.table([columns[field.name].cast(field.type) for field in PLAN_SCHEMA], schema=PLAN_SCHEMA)


def with_verdicts(run_dir: Path, reported: Any) -> Any:
    """Records with those answers as errors that the users' own code found wrong; the last word counts."""
    batches = [batch for path in spool_files(run_dir, "verdicts").values() for batch in whole_batches(path)]
    if not batches:
        return reported
    table = pa.Table.from_batches(batches, LOCUSTFILE_VERDICT_SCHEMA)
    verdicts = dict(zip(table["index"].to_pylist(), table["error"].to_pylist(), strict=True))
    wrong = pc.is_in(reported["index"], pa.array(list(verdicts), pa.int64()))
    wrong = pc.and_(wrong, pc.equal(reported["status"], Status.OK.value))
    errors = pa.array([verdicts.get(index) for index in reported["index"].to_pylist()], pa.string())
    status = pc.if_else(wrong, Status.BAD_RESPONSE.value, reported["status"])
    for name, column in (("status", status), ("error", pc.if_else(wrong, errors, reported["error"]))):
        at = reported.schema.get_field_index(name)
        reported = reported.set_column(at, reported.schema.field(name), column)
    return reported


def _same(text: str, rows: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))
