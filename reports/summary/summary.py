"""`summary.json` (`tailgate.summary/1`): the figures of one run, for scripts. Latencies in ms.

The shape is stable: keys are added, never renamed. A percentile its sample can't support is null (see
`percentile_needs`); an infinite one (failures counted as infinitely late) is the string "inf".
The documents for people (`reports.documents.run`) are made from it.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

from tailgate.reports.metrics.analysis import Analysis, analyse
from tailgate.reports.rundir.integrity import altered
from tailgate.reports.rundir.manifest import Manifest, check_schema, write_atomic
from tailgate.reports.summary import parts
from tailgate.reports.summary.objectives import Judged
from tailgate.reports.summary.results import Results, work_out
from tailgate.reports.validity.client import Check

SCHEMA: Final = "tailgate.summary/1"
FILE_NAME: Final = "summary.json"


def summarize(run_dir: Path | str) -> dict[str, Any]:
    """Work out a collected run directory's summary.

    Raises:
        UserError: files are missing or damaged.
    """
    return summary_of(analyse(run_dir))


def write_summary(run_dir: Path | str) -> dict[str, Any]:
    """As `summarize`, and write `run_dir/summary.json`."""
    summary = summarize(run_dir)
    save_summary(run_dir, summary)
    return summary


def save_summary(run_dir: Path | str, summary: dict[str, Any]) -> None:
    """Write `run_dir/summary.json` in one step, and its checksum into the manifest."""
    import orjson

    text = orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n"
    write_atomic(Path(run_dir) / FILE_NAME, text)
    update = {"summary_checksum": hashlib.sha256(text).hexdigest()}
    Manifest.load(run_dir).model_copy(update=update).save(run_dir)


def stored_summary(run_dir: Path | str) -> dict[str, Any] | None:
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
        summary: dict[str, Any] = orjson.loads(text)
    except (OSError, ValueError):
        return None
    check_schema(summary, SCHEMA, str(run_dir / FILE_NAME))
    whole = hashlib.sha256(text).hexdigest() == manifest.summary_checksum
    return None if not whole or (run_dir / "spool").exists() or altered(run_dir, manifest) else summary


def exit_code(summary: dict[str, Any]) -> int:
    """The exit code a summary stands for: 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 INVALID, 130 interrupted."""
    return int(summary["exit_code"])


def summary_of(analysis: Analysis) -> dict[str, Any]:
    """The summary of an analysed run, as plain JSON values."""
    return summary_of_results(work_out(analysis))


def summary_of_results(results: Results) -> dict[str, Any]:
    """As `summary_of`, of figures that were already worked out."""
    analysis, manifest = results.analysis, results.analysis.run.manifest
    failed = [check for check in results.checks if check.status == "fail"]
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "run": manifest.run,
        "name": manifest.name,
        "valid": not failed,
        "invalid_reasons": [check.reason() for check in failed],
        "simulated": manifest.target.simulated,
        "state": manifest.state,
        "verdict": "",
        "exit_code": 0,
        "why": "",
        "load": parts.load(analysis, results.flight),
        "latency_ms": {name: parts.distribution(found) for name, found in analysis.latencies.items()},
        "latency_failed_as_inf_ms": {
            name: parts.distribution(found) for name, found in analysis.latencies_failed_as_inf.items()
        },
        "percentile_needs": parts.needs(analysis.latencies),
        "percentile_needs_failed_as_inf": parts.needs(analysis.latencies_failed_as_inf),
        "checks": [parts.check(one) for one in results.checks],
        "throughput": parts.plain(analysis.throughput) | parts.total_rate(analysis),
        "slo": parts.slo(analysis, results.judged),
        "streaming": parts.streaming(analysis),
        "connections": parts.connections(analysis),
        "errors": parts.errors(analysis),
        "splits": {name: [parts.group(one) for one in groups] for name, groups in results.splits.items()},
        "fairness": parts.plain(results.fairness),
        "workload": parts.plain(results.workload),
        "cost": parts.plain(results.cost),
        "energy": parts.plain(results.energy),
        "server": parts.plain(results.server),
        "gpu": parts.gpus(results.gpus),
        "life": parts.plain(results.life),
        "vram": parts.plain(results.vram),
        "findings": [parts.plain(one) for one in results.findings],
        "client": parts.client(analysis),
        "notices": [*manifest.notices, *results.notices],
    }
    summary |= _verdict(results, failed, summary)
    return dict(parts.jsonable(summary))


def _verdict(results: Results, failed: list[Check], summary: dict[str, Any]) -> dict[str, Any]:
    """Verdict, exit code and one sentence why; validity comes before any result."""
    manifest, judged = results.analysis.run.manifest, results.judged
    if failed:
        by_hand = manifest.state == "interrupted" and not manifest.recovered
        return {
            "verdict": "INVALID",
            "exit_code": 130 if by_hand else 4,
            "why": summary["invalid_reasons"][0],
        }
    ok = summary["load"]["requests"].get("ok", 0)
    by_budget = manifest.state == "aborted" and manifest.aborted_by == "spend"
    if manifest.state == "aborted" and not by_budget:
        why = f"The run was aborted: {manifest.state_reason or 'a condition of abort_if held'}."
        return {"verdict": "FAIL", "exit_code": 1, "why": why}
    if not ok and (summary["errors"]["failed"] or not by_budget):
        return {"verdict": "FAIL", "exit_code": 1, "why": "No request of the measure phase ended ok."}
    broken = [j for j in judged if j.result == "broken"]
    unsure = [j for j in judged if j.result == "can't tell"]
    if broken:
        return {
            "verdict": "FAIL",
            "exit_code": 1,
            "why": "Broken: " + "; ".join(_said(j) for j in broken) + ".",
        }
    if by_budget:
        why = f"The budget ended the run before its time: {manifest.state_reason}."
        return {"verdict": "INCONCLUSIVE", "exit_code": 3, "why": why}
    if unsure:
        why = "Can't tell: " + "; ".join(_said(j) for j in unsure) + "."
        return {"verdict": "INCONCLUSIVE", "exit_code": 3, "why": why}
    if judged:
        return {"verdict": "PASS", "exit_code": 0, "why": _all_met(judged)}
    return {"verdict": "PASS", "exit_code": 0, "why": "Measured; no objective was given (--slo)."}


def _all_met(judged: list[Judged]) -> str:
    unbounded = [j for j in judged if j.as_measured]
    if not unbounded:
        return "Every objective is met with 95 % confidence."
    rest = "the others with 95 % confidence, " if len(unbounded) < len(judged) else ""
    return f"Every objective is met: {rest}as measured and without a bound {'; '.join(_said(j) for j in unbounded)}."


def _said(judged: Judged) -> str:
    scale, unit = parts.unit_of(judged.threshold.metric)
    found = ", ".join(
        f"{name} {value * scale:.4g}{unit}"
        for name, value in (("found", judged.value), ("at least", judged.below), ("at most", judged.above))
        if value is not None
    )
    why = "" if judged.as_measured and judged.result == "met" else judged.why
    told = ", ".join(part for part in (found, why) if part)
    scope = f"{judged.scope}: " if judged.scope else ""
    return f"{scope}{judged.threshold.text} ({told})"
