"""`simulate`: a plan served by a simulated deployment, as the tables that a run of it would have written."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.engine.virtual.fleet import Fleet, FleetSettings
from tailgate.harness.engine.virtual.outcome import Ending, ServerSeries
from tailgate.harness.engine.virtual.plan_load import ClosedPlan, Limits, OpenPlan, UserChange
from tailgate.harness.engine.virtual.plan_rows import PlanRows
from tailgate.harness.run.prepare import measure_end_ns
from tailgate.harness.run.virtual import records
from tailgate.harness.run.virtual.server_table import server
from tailgate.harness.targets.sim import SimDeployment
from tailgate.loadgen.control.stages import Stage, moments, users_at
from tailgate.loadgen.injector.api.request_builder import Patience
from tailgate.reports.rundir.telemetry import SERVER_SCHEMA
from tailgate.workloads.common.arrays import Mask
from tailgate.workloads.plan.plan import ClosedRows, Plan

_FOREVER_NS: Final = 1 << 62


@dataclass(frozen=True)
class SimulatedRun:
    """What came of a plan. `plan` holds the rows that a closed loop started, too; times are ns of the virtual clock.

    `reported` is a table of `records.REPORTED_SCHEMA`, `arrivals` (None unless asked for) of ARRIVALS_SCHEMA, `client`
    of CLIENT_SCHEMA, `server` of SERVER_SCHEMA; `series` has an entry for each replica.
    """

    plan: Any
    reported: Any
    arrivals: Any | None
    client: Any
    server: Any
    series: tuple[ServerSeries, ...]
    ended_ns: int
    measure_end_ns: int
    users: dict[str, float]
    happened: tuple[tuple[float, str, str], ...]  # (s, kind, text): faults, and replicas that come and go


def simulate(plan: Plan, deployment: SimDeployment, spec: RunSpec, *, arrivals: bool = True) -> SimulatedRun:
    """Serve a plan.

    Args:
        plan: what is sent.
        deployment: what serves it.
        spec: how it is sent: users and stages, timeout, patience, drain, whether answers end by themselves. Its target
            is not looked at.
        arrivals: whether each token's time is kept.
    """
    resolved, address = deployment.resolved, deployment.address
    closed = plan.loop == "closed"
    endless = closed and spec.workload.requests is None
    rows = PlanRows(
        plan.table, resolved, plan.block_tokens,
        natural=spec.output == "natural",
        more=ClosedRows(spec.workload, spec.seed) if endless else None,
    )  # fmt: skip
    patience = None if spec.abandon is None else Patience(str(spec.abandon.patience), spec.abandon.share, spec.seed).ns
    timeout_ns = None if spec.timeout is None else int(spec.timeout * 1e9)
    limits, end_ns, drain_ns = Limits(timeout_ns, patience), measure_end_ns(spec, plan), int(spec.drain * 1e9)
    load: OpenPlan | ClosedPlan
    if closed:
        load = ClosedPlan(
            rows, limits, user_changes(spec), close_ns=end_ns, drain_ns=drain_ns, most=spec.workload.requests,
            count_from_ns=int(spec.workload.warmup * 1e9),
        )  # fmt: skip
    else:
        load = OpenPlan(rows, limits, (end_ns + drain_ns) / 1e9)
    settings = FleetSettings(
        resolved, address.replicas, address.router, address.faults, address.scaling, keep_tokens=arrivals,
        tick_s=spec.telemetry.server_interval,
    )  # fmt: skip
    fleet = Fleet(settings, load)
    fleet.run()
    reported = records.reported(fleet, load, deployment.names, timeout_ns)
    ended_ns = int(np.ceil(fleet.ended_s * 1e9)) + 1  # just after the last end
    users: dict[str, float] = {}
    table = plan.table
    if isinstance(load, ClosedPlan):
        assert load.closed_ns is not None
        end_ns = load.closed_ns + (spec.workload.requests is not None)  # just after the last one was asked for
        users = load.users.summary(end_ns)
        table = _as_far_as_needed(rows, reported)
    return SimulatedRun(
        plan=table,
        reported=reported,
        arrivals=records.arrivals(fleet, load) if arrivals else None,
        client=records.client(reported, load.returns_ns if isinstance(load, ClosedPlan) else [], ended_ns),
        server=server(fleet, resolved, deployment.names, _stopped(fleet, rows))
        if spec.telemetry.server == "auto"
        else SERVER_SCHEMA.empty_table(),
        series=tuple(recorder.series() for recorder in fleet.series),
        ended_ns=ended_ns,
        measure_end_ns=end_ns,
        users=users,
        happened=tuple(fleet.happened),
    )


def user_changes(spec: RunSpec) -> list[UserChange]:
    """How many users there are from when on: the first stage's through the warm-up, then stage by stage."""
    workload, warmup_ns = spec.workload, int(spec.workload.warmup * 1e9)
    if not workload.stages:
        return [UserChange(0, workload.users or 0)]
    stages = [Stage(stage.users, int(stage.for_ * 1e9), int(stage.ramp * 1e9)) for stage in workload.stages]
    before = stages[0].users if warmup_ns else 0
    changes = [UserChange(0, before)] if warmup_ns else []
    return changes + [UserChange(t + warmup_ns, users_at(stages, t, before)) for t in moments(stages)]


def _as_far_as_needed(rows: PlanRows, reported: Any) -> Any:
    """The plan's first table, and of the later ones what was started."""
    import pyarrow as pa
    import pyarrow.compute as pc

    last = pc.max(reported["index"]).as_py()
    table = pa.concat_tables([part.cast(rows.tables[0].schema) for part in rows.tables])
    return table.slice(0, max(rows.tables[0].num_rows, 0 if last is None else last + 1))


def _stopped(fleet: Fleet, rows: PlanRows) -> Mask:
    """Which complete answers of `fleet.rows` ended before their limit."""
    limits = np.array(rows.column("output_tokens"), np.int64)[fleet.rows.count("row")]
    complete = fleet.rows.count("ending") == Ending.COMPLETE
    return np.asarray(complete & (fleet.rows.count("generated") < limits))
