"""From plan and spool to `requests.parquet`, `arrivals.parquet` and `client.parquet`.

Every planned row of an open loop ends in exactly one record, whether an injector reported it or not;
a closed loop's plan has no end, so only its started rows become records. Figures are `reports.metrics.requests`.
"""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tailgate.loadgen.records import (
    ARRIVAL_COLUMNS,
    ARRIVALS_SCHEMA,
    CENSORED_COLUMN,
    CLIENT_SCHEMA,
    REQUESTS_SCHEMA,
    SPOOL_SCHEMA,
    Status,
)
from tailgate.reports.rundir.locustfile_plan import plan_of_asked, with_verdicts
from tailgate.reports.rundir.manifest import Manifest, checksums
from tailgate.reports.rundir.parquet_files import read_table
from tailgate.reports.rundir.spool import is_closed, spool_files, whole_batches
from tailgate.reports.rundir.telemetry import GPU_SCHEMA, HOST_SCHEMA, SERVER_SCHEMA
from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.common.errors import UserError

# An injector spools at least once a second: what it did in its last second may be missing.
_SPOOL_PERIOD_NS: Final = 1_000_000_000
_ROW_GROUP_BYTES: Final = 32 << 20
_COUNTS: Final = ("chunks", "client_coalesced", "server_coalesced", "bytes_received")
_REPORTED: Final = [name for name in SPOOL_SCHEMA.names if name not in ARRIVAL_COLUMNS]


def collect(run_dir: Path | str) -> None:
    """Write the three Parquet files of `run_dir`, add all files' checksums to the manifest, remove the spool.

    A row reported twice counts once, the first report wins. A row that was never reported is `lost` if its
    injector died and its time had come, else `not_sent`.

    Raises:
        UserError: the plan is missing or unreadable, or there is no room for the files.
    """
    run_dir = Path(run_dir)
    try:
        _collect(run_dir)
    except OSError as error:
        raise UserError(
            f"can't be written: {error.strerror or error}", where=str(run_dir),
            remedy="Make room, then: tailgate report RUN. What was measured is kept in its spool.",
        ) from error  # fmt: skip


def _collect(run_dir: Path) -> None:
    manifest = Manifest.load(run_dir)
    client = _client(run_dir)
    died = _died(run_dir, manifest.injectors)
    reported, duplicates = _reported(run_dir)
    reported = with_verdicts(run_dir, reported)
    asked = plan_of_asked(run_dir, reported)
    if asked is not None:
        _write(asked, run_dir / "plan.parquet")
    plan = _read_plan(run_dir)
    if asked is None:
        plan = _long_enough(plan, reported, manifest)
    if manifest.loop == "open":
        reported = _with_unreported(reported, plan, manifest, died, _last_sign_of_life(client, reported, manifest))
    _write(_joined(reported, plan, manifest), run_dir / "requests.parquet")
    _write(client, run_dir / "client.parquet")
    _recover_telemetry(run_dir)
    update = {"checksums": checksums(run_dir), "duplicates": duplicates, "unclosed": died}
    Manifest.load(run_dir).model_copy(update=update).save(run_dir)
    # Last: with checksums in the manifest, what is left of a spool says nothing any more.
    shutil.rmtree(run_dir / "spool", ignore_errors=True)


def requests_of(reported: Any, plan: Any, manifest: Manifest) -> Any:
    """The table of `requests.parquet` of a run whose load generator reported all that it sent.

    Args:
        reported: what was sent, sorted by index: columns of `SPOOL_SCHEMA`, without arrivals.
        plan: the run's plan.
        manifest: the run's; its clock marks tell which rows' time came, and in a closed loop their phase.
    """
    if manifest.loop == "open":
        reported = _with_unreported(reported, plan, manifest, [], -1)
    return _joined(reported, plan, manifest)


def _read_plan(run_dir: Path) -> Any:
    path = run_dir / "plan.parquet"
    columns = ["index", "at_ns", "session", "turn", "think_ns", "class", "tenant", "phase"]
    if not path.exists():
        raise UserError("the plan is missing: what should have been sent is unknown", where=str(path))
    plan = read_table(path, [*columns, "prompt_tokens", "output_tokens"])
    index = plan["index"].to_numpy()
    return plan if np.all(np.diff(index) > 0) else plan.sort_by("index")


def _long_enough(plan: Any, reported: Any, manifest: Manifest) -> Any:
    """A closed loop's plan has no end: rows that were started beyond its file are made again from the seed."""
    have, last = plan.num_rows, pc.max(reported["index"]).as_py()
    if manifest.loop == "open" or last is None or last < have:
        return plan
    from tailgate.workloads.config.workload import WorkloadSpec
    from tailgate.workloads.plan.plan import closed_rows  # only a killed closed loop needs the planner

    spec = WorkloadSpec.model_validate(manifest.spec.get("workload", {}))
    more = closed_rows(spec, manifest.seed, have, last + 1 - have)
    return pa.concat_tables([plan, more.select(plan.column_names).cast(plan.schema)])


def _recover_telemetry(run_dir: Path) -> None:
    """Samples whose writer was killed before it wrote its Parquet file."""
    for kind, schema in (("server", SERVER_SCHEMA), ("host", HOST_SCHEMA), ("gpu", GPU_SCHEMA)):
        stream, path = run_dir / "spool" / f"{kind}.arrows", run_dir / f"{kind}.parquet"
        if stream.exists() and not path.exists():
            _write(pa.Table.from_batches(list(whole_batches(stream)), schema), path)


def _reported(run_dir: Path) -> tuple[Any, int]:
    """What injectors reported: a table of _REPORTED columns, one row per index, sorted by it; and repetitions.

    Arrivals are copied straight to `arrivals.parquet` on the way, 32 MB at a time.
    """
    seen = np.zeros(0, np.bool_)
    parts: list[Any] = []
    pending: list[Any] = []
    held = duplicates = 0
    files = spool_files(run_dir, "injector").values()
    arrivals = _arrivals_schema(files)
    with (
        _draft(run_dir / "arrivals.parquet") as draft,
        pq.ParquetWriter(draft, arrivals, compression="lz4", use_dictionary=False) as out,
    ):
        for path in files:
            for batch in whole_batches(path):
                fresh, seen = _first_time(batch["index"].to_numpy(), seen)
                first_reports = batch.filter(pa.array(fresh))
                duplicates += batch.num_rows - first_reports.num_rows
                parts.append(first_reports.select(_REPORTED))
                has_any = pc.fill_null(pc.greater(pc.list_value_length(first_reports["arrivals_us"]), 0), False)
                pending.append(first_reports.select(arrivals.names).filter(has_any))
                held += pending[-1].nbytes
                if held > _ROW_GROUP_BYTES:
                    out.write_table(pa.Table.from_batches(pending).cast(arrivals))
                    pending, held = [], 0
        if pending:
            out.write_table(pa.Table.from_batches(pending).cast(arrivals))
    schema = pa.schema([SPOOL_SCHEMA.field(name) for name in _REPORTED])
    table = pa.Table.from_batches(parts, schema).sort_by("index") if parts else schema.empty_table()
    return table, duplicates


def _arrivals_schema(spool: Iterable[Path]) -> pa.Schema:
    """That of `arrivals.parquet`: without intervals where a spool of an older version has none."""
    for path in spool:
        batch = next(iter(whole_batches(path)), None)
        if batch is not None and CENSORED_COLUMN not in batch.schema.names:
            return pa.schema([field for field in ARRIVALS_SCHEMA if field.name != CENSORED_COLUMN])
    return ARRIVALS_SCHEMA


def _first_time(index: Ints, seen: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which of `index` were not seen before (nor earlier in `index`), and `seen` with them marked."""
    if len(index) and (top := int(index.max())) >= len(seen):
        seen = np.concatenate([seen, np.zeros(max(top + 1 - len(seen), len(seen)), np.bool_)])
    fresh = np.zeros(len(index), np.bool_)
    fresh[np.unique(index, return_index=True)[1]] = True
    fresh &= ~seen[index]
    seen[index] = True
    return fresh, seen


def _client(run_dir: Path) -> Any:
    batches = [b for path in spool_files(run_dir, "client").values() for b in whole_batches(path)]
    tables = [CLIENT_SCHEMA.empty_table(), *(pa.Table.from_batches([batch]) for batch in batches)]
    return pa.concat_tables(tables, promote_options="default")  # an older version's spool lacks columns: null


def _died(run_dir: Path, injectors: int) -> list[int]:
    """Injectors that never closed their spool: killed, or never started."""
    files = spool_files(run_dir, "injector")
    return [k for k in range(max(injectors, len(files))) if k not in files or not is_closed(files[k])]


def _last_sign_of_life(client: Any, reported: Any, manifest: Manifest) -> int:
    """Run time up to which rows were (or may have been) sent; -1 if the load never began."""
    if manifest.ended_ns is not None:
        return min(manifest.ended_ns, manifest.measure_end_ns)
    if not (manifest.t0_unix_ns or reported.num_rows or client.num_rows):
        return -1
    ends = pc.add(client["t_ns"], client["dur_ns"])
    signs = [pc.max(ends).as_py(), pc.max(reported["dispatched_ns"]).as_py(), pc.max(reported["end_ns"]).as_py()]
    return max((t for t in signs if t is not None), default=0) + _SPOOL_PERIOD_NS


def _with_unreported(reported: Any, plan: Any, manifest: Manifest, died: list[int], horizon_ns: int) -> Any:
    """`reported` plus a row for each planned one that is missing: `lost` or `not_sent`.

    Of an injector that never closed its spool every row is lost whose time had come. A later turn has no time of its
    own in the plan: its time may have come as soon as its session's had. A worker that was given up may have sent on.
    """
    missing = plan.filter(pa.array(~np.isin(plan["index"].to_numpy(), reported["index"].to_numpy())))
    if not missing.num_rows:
        return reported
    session = missing["session"].to_numpy()
    injector = session % max(manifest.injectors, 1)
    given_up = [k for worker in manifest.workers if worker.get("given_up") for k in worker["injectors"]]
    begun = plan["session"].to_numpy()[plan["at_ns"].to_numpy().astype(np.float64) <= horizon_ns]
    at_ns = missing["at_ns"].to_numpy().astype(np.float64)
    due = (at_ns <= horizon_ns) | (np.isnan(at_ns) & np.isin(session, begun)) | np.isin(injector, given_up)
    lost = np.isin(injector, died) & due
    columns = {
        "index": missing["index"],
        "injector": pa.array(injector, pa.int32()),
        "status": pa.array(np.where(lost, Status.LOST.value, Status.NOT_SENT.value)),
        "scheduled_ns": missing["at_ns"],
        **{name: pa.array(np.zeros(len(session), np.int32)) for name in _COUNTS},
        "first_token_coalesced": pa.array(np.zeros(len(session), np.bool_)),
    }
    rows = [
        columns[f.name].cast(f.type) if f.name in columns else pa.nulls(len(session), f.type) for f in reported.schema
    ]
    return pa.concat_tables([reported, pa.table(rows, schema=reported.schema)]).sort_by("index")


def _joined(reported: Any, plan: Any, manifest: Manifest) -> Any:
    """The columns of REQUESTS_SCHEMA: those of the plan beside those that were reported."""
    index, planned = reported["index"].to_numpy(), plan["index"].to_numpy()
    at = np.searchsorted(planned, index)
    at_clipped = np.minimum(at, len(planned) - 1)
    planned_too = planned[at_clipped] == index if len(planned) else np.zeros(len(index), np.bool_)
    if not planned_too.all():
        stray = int(index[~planned_too][0])
        raise UserError(
            f"{int((~planned_too).sum())} records belong to no planned row (the first: index {stray})",
            where="plan.parquet",
            remedy="The plan is not the one that was sent.",
        )
    rows = plan.take(pa.array(at_clipped))
    columns = {
        **{name: rows[name] for name in ("session", "turn", "class", "tenant", "phase")},
        "prompt_tokens_planned": rows["prompt_tokens"],
        "output_tokens_planned": rows["output_tokens"],
        **{name: reported[name] for name in _REPORTED},
    }
    columns["phase"] = _phase(rows, reported, manifest)
    return pa.table([columns[f.name].cast(f.type) for f in REQUESTS_SCHEMA], schema=REQUESTS_SCHEMA)


def _phase(rows: Any, reported: Any, manifest: Manifest) -> Any:
    """The plan's phase, or, for rows whose time the plan left open, the phase in which they began."""
    phase = rows["phase"].combine_chunks().cast(pa.string())
    began = pc.coalesce(reported["scheduled_ns"], reported["handed_over_ns"], reported["dispatched_ns"])
    undecided = pc.and_(pc.is_null(rows["at_ns"]), pc.is_valid(began))
    by_time = pc.if_else(
        pc.less(began, manifest.measure_start_ns),
        "warmup",
        pc.if_else(pc.less(began, manifest.measure_end_ns), "measure", "cooldown"),
    )
    return pc.dictionary_encode(pc.if_else(undecided, by_time, phase))


def _write(table: Any, path: Path) -> None:
    with _draft(path) as draft:
        pq.write_table(table, draft, compression="zstd")


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its place once it is whole, and is gone otherwise."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)
