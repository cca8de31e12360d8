"""Trace files as a spec names them, and small ones as a test writes them."""

import json
from pathlib import Path
from typing import Any

from tailgate.workloads.config.workload import TraceSpec, WorkloadSpec
from tailgate.workloads.plan.plan import Plan, make_plan


def spec(file: Path, format: str, **more: Any) -> TraceSpec:
    return TraceSpec.model_validate({"file": file, "format": format} | more)


def plan_of(file: Path, format: str, **more: Any) -> Plan:
    return make_plan(WorkloadSpec(trace=spec(file, format, **more)), 1)


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(record if isinstance(record, str) else json.dumps(record) + "\n" for record in records))
    return path
