"""A run's summary: made from its analysis, written to `summary.json`, and read back.

The documents for people (`reports.documents`) are made from it; its shape is `reports.summary.model`.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

from tailgate.reports.cost.cost import cost
from tailgate.reports.cost.energy import energy
from tailgate.reports.metrics.analysis import Analysis, analyse
from tailgate.reports.metrics.breakdown import fairness, splits
from tailgate.reports.metrics.in_flight import in_flight
from tailgate.reports.metrics.workload_as_sent import workload_as_sent
from tailgate.reports.rundir.events import read_events
from tailgate.reports.rundir.json_files import check_schema, from_json, read_json, write_atomic
from tailgate.reports.rundir.manifest import Manifest, altered
from tailgate.reports.summary import parts
from tailgate.reports.summary.diagnosis import diagnose
from tailgate.reports.summary.findings import Evidence
from tailgate.reports.summary.latency import latencies, short_of
from tailgate.reports.summary.model import GroupSummary, Summary
from tailgate.reports.summary.objectives import judge, undecided_by_client
from tailgate.reports.summary.run_verdict import run_verdict
from tailgate.reports.telemetry.deployment import deployment_memory, lifecycle
from tailgate.reports.telemetry.gpu import gpu_views
from tailgate.reports.telemetry.server import server_view
from tailgate.reports.validity.client import client_checks
from tailgate.reports.validity.lateness import lateness_checks
from tailgate.reports.validity.own_error import own_error_check
from tailgate.reports.validity.server import server_checks
from tailgate.reports.validity.state import on_virtual_clock, state_checks, without_lost
from tailgate.workloads.common.errors import UserError

SCHEMA: Final = "tailgate.summary/1"
FILE_NAME: Final = "summary.json"


def summarize(run_dir: Path | str) -> Summary:
    """Work out a collected run directory's summary."""
    return summary_of(analyse(run_dir))


def write_summary(run_dir: Path | str) -> Summary:
    summary = summarize(run_dir)
    save_summary(run_dir, summary)
    return summary


def save_summary(run_dir: Path | str, summary: Summary) -> None:
    import orjson

    text = orjson.dumps(summary.to_json(), option=orjson.OPT_INDENT_2) + b"\n"
    write_atomic(Path(run_dir) / FILE_NAME, text)
    update = {"summary_checksum": hashlib.sha256(text).hexdigest()}
    Manifest.load(run_dir).model_copy(update=update).save(run_dir)


def read_summary(path: Path | str) -> Summary:
    """The summary in a file, or in a run directory, as it is there (`stored_summary` asks whether it still holds).

    Raises:
        UserError: it is missing or damaged, is no summary, or one of a newer major version.
    """
    path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    data = read_json(path, SCHEMA)
    try:
        return _typed(data)
    except ValueError as error:
        raise UserError(
            f"is damaged: {error}", where=str(path), remedy="Make it again: tailgate report RUN."
        ) from error


def stored_summary(run_dir: Path | str) -> Summary | None:
    """`run_dir/summary.json` if it can be relied on; None if it has to be made again (`reports.build`).

    It can where it is what was written (by the manifest's checksum) and none of the measured files was changed since.

    Raises:
        UserError: it is of a newer schema.
    """
    import orjson

    run_dir = Path(run_dir)
    manifest = Manifest.load(run_dir)
    try:
        text = (run_dir / FILE_NAME).read_bytes()
        data = orjson.loads(text)
    except (OSError, ValueError):
        return None
    check_schema(data, SCHEMA, str(run_dir / FILE_NAME))
    unchanged = hashlib.sha256(text).hexdigest() == manifest.summary_checksum
    if not unchanged or (run_dir / "spool").exists() or altered(run_dir, manifest):
        return None
    try:
        return _typed(data)
    except ValueError:
        return None


def _typed(data: dict[str, Any]) -> Summary:
    summary: Summary = from_json(Summary, data)
    return summary


def summary_of(analysis: Analysis) -> Summary:
    """Work out everything there is to know of an analysed run."""
    manifest = analysis.run.manifest
    (flight, overloaded), gpus, server = in_flight(analysis.run), gpu_views(analysis), server_view(analysis)
    checks = [*client_checks(analysis), *lateness_checks(analysis), *server_checks(analysis)]
    checks += state_checks(analysis, gpus)
    checks = without_lost(analysis.run, checks)
    judged = judge(analysis, bool(overloaded))
    causes = [check for check in checks if check.status == "noted"]
    checks.append(own_error_check(analysis, undecided_by_client(judged), causes))
    checks = on_virtual_clock(analysis.run, checks)
    failed = [check for check in checks if check.status == "fail"]
    groups, workload = splits(analysis), workload_as_sent(analysis)
    events, unreadable = read_events(analysis.run.path) if analysis.run.tables is None else ([], 0)
    remarks = [*manifest.notices, *parts.notices(analysis, groups, unreadable)]
    try:
        money = cost(analysis)
    except UserError as error:
        money = None
        remarks.append(f"no cost: {error}")
    stated = manifest.spec.get("gpus") or {}
    load, errors = parts.load(analysis, flight, overloaded), parts.errors(analysis)
    verdict = run_verdict(manifest, failed, load, errors, judged)
    failures_late = analysis.latencies_failed_as_inf
    return Summary(
        schema=SCHEMA,
        run=manifest.run,
        name=manifest.name,
        valid=not failed,
        invalid_reasons=[check.reason() for check in failed],
        simulated=manifest.target.simulated,
        state=manifest.state,
        verdict=verdict.verdict,
        exit_code=verdict.exit_code,
        why=verdict.why,
        load=load,
        latency_ms=latencies(analysis.latencies),
        latency_failed_as_inf_ms=latencies(failures_late),
        percentile_needs=short_of({name: values.quantiles for name, values in analysis.latencies.items()}),
        percentile_needs_failed_as_inf=short_of({name: values.quantiles for name, values in failures_late.items()}),
        checks=checks,
        throughput=analysis.throughput,
        slo=parts.slo(analysis, judged),
        streaming=parts.streaming(analysis),
        connections=parts.connections(analysis),
        errors=errors,
        splits={name: [GroupSummary.of(group) for group in by_name] for name, by_name in groups.items()},
        fairness=fairness(analysis),
        workload=workload,
        cost=money,
        energy=energy(analysis, gpus, stated.get("usd_per_kwh"), stated.get("gco2_per_kwh")),
        server=server,
        gpu=parts.gpus(gpus),
        life=lifecycle(manifest),
        vram=deployment_memory(manifest, analysis.gpu),
        findings=diagnose(Evidence(analysis, checks, flight, bool(overloaded), server, gpus, workload, money, events)),
        client=parts.client(analysis),
        notices=remarks,
    )
