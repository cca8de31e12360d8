"""A gate's runs: interleaved pairs, one seed a pair, servers restarted as the policy says.

    AB, BA, AB, ...  ->  first look  ->  decided, or the declared extension  ->  second look

The data is looked at only there. What is watched in between is the measuring itself: a pair whose measuring failed
is measured again, a few times at most and within the budget, and the verdict says so. That needs no look at any figure.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tailgate.harness.experiments.core.shared_target import SharedTarget
from tailgate.harness.experiments.gate import costs, load_points
from tailgate.harness.experiments.gate.estimate import CALIBRATION, estimate, order_of, require_budget
from tailgate.harness.experiments.gate.feasibility import require_decidable, require_figures
from tailgate.harness.experiments.gate.run_specs import Experiment
from tailgate.harness.load.interrupts import Interrupts
from tailgate.harness.load.listener import Watcher
from tailgate.harness.run.execute import execute
from tailgate.harness.targets.base import TargetGone
from tailgate.harness.targets.make import make_target
from tailgate.reports.build import build
from tailgate.reports.verdicts.gate.comparability import of_run
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.runs import SIDES, GateRecord, GateRun, Side, of_campaign, read_run
from tailgate.reports.verdicts.gate.verdict import judge
from tailgate.workloads.common.errors import UserError

Say = Callable[[str], None]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a run: what was measured is kept."""


class Gone(Exception):
    """A side's server did not come up, or not again: that is a result, not a mistake of the person."""


@dataclass
class _State:
    """Where the gate stands."""

    found: Experiment
    out: Path
    campaign: GateRecord
    say: Say
    began: float
    kept: dict[Side, SharedTarget] = field(default_factory=dict)
    measured: set[Side] = field(default_factory=set)
    repeats: int = 0
    seconds: dict[Side, float] = field(default_factory=lambda: dict.fromkeys(SIDES, 0.0))

    def whole(self) -> float:
        """Seconds since the gate began."""
        return time.monotonic() - self.began

    def dollars(self) -> float | None:
        """Spent so far."""
        return costs.dollars(self.found, self.seconds, self.whole())


async def run_campaign(found: Experiment, out: Path, command: list[str], extension: bool, say: Say) -> Verdict:
    """Make the runs and judge them; everything is in ``out``.

    Args:
        found: the experiment.
        out: the gate's folder, which exists and is empty.
        command: what was typed.
        extension: whether the declared extension fits into the budget, as far as that is known beforehand.
        say: called with one line about what happens now.

    Raises:
        UserError: a run could not be made, and no target is to blame.
        Interrupted: the person stopped it.
    """
    policy = found.policy
    ours = all(found.sample(side).target.kind != "url" for side in SIDES)
    restart = policy.restart if ours else "never"
    campaign = GateRecord(command=tuple(command), restart=restart, extension=extension, notes=found.notes)
    state = _State(found, out, campaign, say, time.monotonic())
    with Interrupts() as interrupts:
        try:
            if await _find_rates(state):
                await _up_to(state, policy.pairs)
                if state.campaign.extension and policy.extended is not None and _look(state).extend:
                    say(f"undecided after {policy.pairs} pairs: the declared extension to {policy.extended}")
                    await _up_to(state, policy.extended)
        except UserError:
            if state.campaign.runs:
                say(f"what was measured is kept: {out}")
            raise
        finally:
            interrupts.hold()
            for kept in state.kept.values():
                await kept.end()
            _account(state)
    return _look(state)


def _look(state: _State) -> Verdict:
    """The verdict on what was measured so far."""
    return judge(of_campaign(state.out, state.campaign), state.found.policy, state.campaign)


async def _find_rates(state: _State) -> bool:
    """Points given as shares: what the baseline carries at the saturated point is 1x. Whether that is known now.

    Raises:
        UserError: the declared pairs can't decide at these rates, or don't fit into the budget.
    """
    shares = load_points.shares(state.found)
    if not shares:
        return True
    saturated = str(state.found.policy.saturated)
    state.say(f"what the baseline carries at {saturated}, for {', '.join(shares)}")

    async def once(tail: str) -> list[GateRun]:
        return [await _run(state, "baseline", saturated, CALIBRATION, state.out / f"rates-{saturated}{tail}")]

    (run,), over = await _measured(state, "what the baseline carries", once)
    if over:
        _record(state, [run], CALIBRATION)
        return False
    carried = run.summary["throughput"].get("requests_per_s")
    if not carried:
        raise UserError("the baseline carried nothing there", where=f"policy: points.{saturated}")
    notes = []
    for name, share in shares.items():
        load = load_points.load_for(state.found, name, share * carried)
        state.found = state.found.with_rate(name, load.rate)
        notes.append(
            f"{name}: {share:g}x of the {carried:.4g} requests/s that the baseline carries:"
            f" arrivals at {load.rate:g}/s, which plan {load.planned:.4g} requests/s"
        )
        state.say(notes[-1])
    state.campaign = replace(
        state.campaign, rates=dict(state.found.rates), notes=(*state.campaign.notes, *notes),
    )  # fmt: skip
    require_decidable(state.found)
    fits = require_budget(state.found, estimate(state.found))
    state.campaign = replace(state.campaign, extension=state.campaign.extension and fits)
    return True


async def _up_to(state: _State, pairs: int) -> None:
    """Measure until there are so many pairs, or nothing more to learn."""
    for pair in range(state.campaign.pairs + 1, pairs + 1):
        campaign = state.campaign
        if campaign.pairs and (stop := _spent(state, campaign.seconds_per_pair)):
            state.campaign = replace(campaign, stopped=f"{stop} after {campaign.pairs} pairs")
            break

        async def once(tail: str, pair: int = pair) -> list[GateRun]:
            return await _pair(state, pair, pairs, tail)

        runs, over = await _measured(state, f"pair {pair}", once)
        _record(state, runs, pair)
        _account(state)
        if over:
            break


async def _measured(
    state: _State, what: str, once: Callable[[str], Awaitable[list[GateRun]]]
) -> tuple[list[GateRun], bool]:
    """Runs, made again while their measuring failed and that is allowed; whether nothing more is to be learned."""
    again = 0
    while True:
        began = time.monotonic()
        runs = await once(f"-again{again}" if again else "")
        dead = state.campaign.gone is not None or any(run.died or run.refused_all for run in runs)
        bad = [one for run in runs for one in of_run(run)]
        if not bad or dead or state.repeats >= state.found.policy.repeat_invalid:
            return runs, dead or bool(bad)
        if stop := _spent(state, time.monotonic() - began):
            state.campaign = replace(state.campaign, stopped=f"{stop}: {what} could not be measured again")
            return runs, True
        again += 1
        state.repeats += 1
        said = f"{what} was measured again, since its measuring had failed ({bad[0].says})"
        state.say(said)
        state.campaign = replace(state.campaign, repeated=(*state.campaign.repeated, said))


def _record(state: _State, runs: list[GateRun], pair: int) -> None:
    """These runs count."""
    made = tuple((run.path.name, run.side, run.point, pair) for run in runs)
    state.campaign = replace(state.campaign, runs=(*state.campaign.runs, *made))


async def _pair(state: _State, pair: int, pairs: int, tail: str) -> list[GateRun]:
    """The runs of a pair; fewer if a side's server did not come up, which the campaign then says.

    Raises:
        UserError: a run could not be made, and the target is not to blame.
    """
    runs: list[GateRun] = []
    for place, side in enumerate(order_of(pair), 1):
        for point in state.found.points:
            at = f"{point}" if len(state.found.points) > 1 else ""
            state.say(f"pair {pair} of {pairs}: {side}{f', {at}' if at else ''}")
            name = f"pair{pair:02}-{place}-{side}{f'-{at}' if at else ''}{tail}"
            try:
                run = await _run(state, side, point, pair, state.out / name)
            except Gone as gone:
                if not (runs or state.campaign.runs):
                    raise gone.__cause__ or gone from None
                state.say(str(gone))
                state.campaign = replace(state.campaign, gone=(side, str(gone)))
                return runs
            runs.append(run)
            require_figures(run, state.found.policy)
    return runs


async def _run(state: _State, side: Side, point: str, pair: int, out: Path) -> GateRun:
    """One run, its documents written.

    Raises:
        Gone: the target is not there (any more).
        Interrupted: the person stopped it.
        UserError: something else is wrong.
    """
    spec = state.found.spec(side, point, pair)
    restart = state.found.policy.restart
    if restart == "block":
        for other in [name for name in state.kept if name != side]:
            await state.kept.pop(other).end()
    if restart == "each":
        target = SharedTarget(make_target(spec), stays=False)
    else:
        target = state.kept.setdefault(side, SharedTarget(make_target(spec)))
    began = time.monotonic()
    try:
        await execute(spec, out, list(state.campaign.command), Watcher(), target)
    except TargetGone as error:
        # It was there before, or the other side is and this one was launched in vain: no wrong command line then.
        launched_in_vain = target.fell and spec.target.kind != "sim" and bool(state.measured - {side})
        if side in state.measured or launched_in_vain:
            raise Gone(f"its server did not come up ({error.what})") from error
        raise
    finally:
        state.seconds[side] += time.monotonic() - began
    state.measured.add(side)
    await asyncio.to_thread(build, out)
    run = read_run(out, side, point, pair)
    if run.manifest.state == "interrupted":
        raise Interrupted
    return run


def _account(state: _State) -> None:
    """What was spent so far, written down."""
    dollars = state.dollars()
    state.campaign = replace(
        state.campaign, seconds=state.whole(), dollars=None if dollars is None else round(dollars, 4)
    )
    state.campaign.save(state.out)


def _spent(state: _State, more_s: float) -> str:
    """Why nothing further of `more_s` seconds is begun; empty if the budget allows it."""
    budget, seconds, dollars = state.found.policy.budget, state.whole(), state.dollars()
    if budget.seconds is not None and seconds + more_s > budget.seconds:
        return "the time of the budget was spent"
    if budget.dollars is not None and dollars is not None and dollars * (1 + more_s / seconds) > budget.dollars:
        return "the money of the budget was spent"
    return ""
