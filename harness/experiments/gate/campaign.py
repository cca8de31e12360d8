"""A gate's runs: interleaved pairs, one seed a pair, servers restarted as the policy says.

    AB, BA, AB, ...  ->  first look  ->  decided, or the declared extension  ->  second look

The data is looked at only there. What is watched in between is the measuring itself: a pair whose measuring failed
is measured again, a few times at most and within the budget, and the verdict says so. That needs no look at any figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tailgate.harness.experiments.core.campaign import Campaign, Notify, RunRequest, ServerLost
from tailgate.harness.experiments.gate import load_points
from tailgate.harness.experiments.gate.estimate import (
    CALIBRATION,
    deployments,
    estimate,
    launch_of,
    order_of,
    require_budget,
)
from tailgate.harness.experiments.gate.feasibility import require_decidable, require_figures
from tailgate.harness.experiments.gate.run_specs import Experiment
from tailgate.reports.compare.runs import StoredRun
from tailgate.reports.verdicts.gate.comparability import obstacles_of
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.runs import GateRecord, Side, recorded_runs
from tailgate.reports.verdicts.gate.verdict import judge
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.formatting import counted


@dataclass
class _Gate:
    """Where the gate stands."""

    experiment: Experiment
    campaign: Campaign
    record: GateRecord
    notify: Notify

    def note(self, **changes: object) -> None:
        self.record = replace(self.record, **changes)  # type: ignore[arg-type]

    def save(self) -> None:
        """Write the record with what was spent so far."""
        dollars = self.campaign.dollars
        self.note(
            repeated=tuple(self.campaign.repeated),
            stopped=self.campaign.stopped,
            seconds=self.campaign.seconds,
            dollars=None if dollars is None else round(dollars, 4),
        )
        self.record.save(self.campaign.folder)

    def look(self) -> Verdict:
        return judge(recorded_runs(self.campaign.folder, self.record), self.experiment.policy, self.record)


async def run_campaign(
    experiment: Experiment, folder: Path, command: Sequence[str], extension: bool, notify: Notify
) -> Verdict:
    """Make the runs and judge them; everything is in ``folder``, and runs that are finished there are not made again.

    `extension`: the declared one fits into the budget, as far as that is known beforehand.

    Raises:
        UserError: a run could not be made, and no target is to blame.
        Interrupted: the person stopped it.
    """
    policy, measured = experiment.policy, deployments(experiment)
    restart = policy.restart if all(side.launched for side in measured.values()) else "never"
    record = GateRecord(command=tuple(command), restart=restart, extension=extension, notes=experiment.notes)
    campaign = Campaign(folder, measured, policy.budget, command, notify, policy.repeat_invalid)
    gate = _Gate(experiment, campaign, record, notify)
    try:
        async with campaign.under_way():
            if await _find_rates(gate):
                await _measure_pairs(gate, policy.pairs)
                if gate.record.extension and policy.extended is not None and gate.look().extend:
                    notify(f"undecided after {policy.pairs} pairs: the declared extension to {policy.extended}")
                    await _measure_pairs(gate, policy.extended)
    except UserError:
        if gate.record.runs:
            notify(f"what was measured is kept: {folder}")
        raise
    finally:
        gate.save()
    return gate.look()


async def _find_rates(gate: _Gate) -> bool:
    """Points given as shares: what the baseline carries at the saturated point is 1x. Whether that is known now."""
    shares = load_points.shares(gate.experiment)
    if not shares:
        return True
    saturated = str(gate.experiment.policy.saturated)
    gate.notify(f"what the baseline carries at {saturated}, for {', '.join(shares)}")

    async def measure(suffix: str) -> list[StoredRun]:
        return [await _run(gate, "baseline", saturated, CALIBRATION, f"rates-{saturated}{suffix}")]

    (run,) = await gate.campaign.until_valid("what the baseline carries", measure, _fault)
    if _fault([run]) or _dead([run]):
        _record(gate, [run], CALIBRATION)
        return False
    carried = run.summary.value(("throughput", "requests_per_s"))
    if not carried:
        raise UserError("the baseline carried nothing there", where=f"policy: points.{saturated}")
    for name, share in shares.items():
        load = load_points.load_for(gate.experiment, name, share * carried)
        gate.experiment = gate.experiment.with_rate(name, load.rate)
        note = (
            f"{name}: {share:g}x of the {carried:.4g} requests/s that the baseline carries:"
            f" arrivals at {load.rate:g}/s, which plan {load.planned:.4g} requests/s"
        )
        gate.note(notes=(*gate.record.notes, note))
        gate.notify(note)
    gate.note(rates=dict(gate.experiment.rates))
    require_decidable(gate.experiment)
    fits = require_budget(gate.experiment.policy, *estimate(gate.experiment))
    gate.note(extension=gate.record.extension and fits)
    return True


async def _measure_pairs(gate: _Gate, pairs: int) -> None:
    """Measure until there are so many pairs, or nothing more to learn."""
    for pair in range(gate.record.pairs + 1, pairs + 1):
        complete = gate.record.pairs
        if complete and (reason := gate.campaign.exhausted(gate.record.seconds_per_pair)):
            gate.campaign.stopped = f"{reason} after {counted(complete, 'pair')}"
            break

        async def measure(suffix: str, pair: int = pair) -> list[StoredRun]:
            return await _pair(gate, pair, pairs, suffix)

        runs = await gate.campaign.until_valid(
            f"pair {pair}", measure, lambda runs: "" if gate.record.gone else _fault(runs)
        )
        _record(gate, runs, pair)
        gate.save()
        if gate.record.gone or _dead(runs) or _fault(runs):
            break


def _dead(runs: Sequence[StoredRun]) -> bool:
    return any(run.target_died or run.refused_all for run in runs)


def _fault(runs: Sequence[StoredRun]) -> str:
    """Why the measuring of these runs failed; nothing where a dead target is the result."""
    if _dead(runs):
        return ""
    return next((obstacle.says for run in runs for obstacle in obstacles_of(run)), "")


def _record(gate: _Gate, runs: Sequence[StoredRun], pair: int) -> None:
    counted = tuple((run.path.name, run.label, run.point, pair) for run in runs)
    gate.note(runs=(*gate.record.runs, *counted))


async def _pair(gate: _Gate, pair: int, pairs: int, suffix: str) -> list[StoredRun]:
    """The runs of a pair; fewer if a side's server did not come up, which the record then says."""
    runs: list[StoredRun] = []
    points = gate.experiment.points
    for place, side in enumerate(order_of(pair), 1):
        for point in points:
            at = point if len(points) > 1 else ""
            gate.notify(f"pair {pair} of {pairs}: {side}{f', {at}' if at else ''}")
            label = f"pair{pair:02}-{place}-{side}{f'-{at}' if at else ''}{suffix}"
            try:
                run = await _run(gate, side, point, pair, label)
            except ServerLost as lost:
                if not (runs or gate.record.runs):
                    raise lost.__cause__ or lost from None
                gate.notify(str(lost))
                gate.note(gone=(side, str(lost)))
                return runs
            runs.append(run)
            require_figures(run, gate.experiment.policy)
    return runs


async def _run(gate: _Gate, side: Side, point: str, pair: int, label: str) -> StoredRun:
    """One run, its documents written."""
    policy = gate.experiment.policy
    launch = launch_of(policy.restart, side, pair)
    spec = gate.experiment.spec(side, point, pair)
    request = RunRequest(label, spec, side, launch, alone=policy.restart != "never")
    return replace(await gate.campaign.run(request), point=point, pair=pair)
