"""A gate's runs: interleaved pairs, one seed a pair, servers restarted as the policy says.

    AB, BA, AB, ...  ->  first look  ->  decided, or the declared extension  ->  second look

The data is looked at only there. What is watched in between is the measuring itself: a pair whose measuring failed
is measured again, a few times at most, and the verdict says so. That needs no look at any figure.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.gate.estimate import CALIBRATION, order_of, price_per_hour, require_decidable
from harness.gate.kept import Kept
from harness.gate.sides import Experiment
from harness.load import Watcher
from harness.run import execute
from harness.targets.make import make_target
from reports.build import build
from reports.gate_result import Verdict
from reports.gate_runs import SIDES, Campaign, GateRun, Side, of_campaign, read_run
from reports.gate_validity import of_run
from reports.verdict import judge
from workloads.errors import UserError

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
    campaign: Campaign
    say: Say
    began: float = field(default_factory=time.monotonic)
    kept: dict[Side, Kept] = field(default_factory=dict)
    measured: set[Side] = field(default_factory=set)
    repeats: int = 0
    dollars: float = 0.0


async def conduct(found: Experiment, out: Path, command: list[str], extension: bool, say: Say) -> Verdict:
    """Make the runs and judge them; everything is in ``out``.

    Args:
        found: the experiment.
        out: the gate's folder, which exists and is empty.
        command: what was typed.
        extension: whether the declared extension fits into the budget.
        say: called with one line about what happens now.

    Raises:
        UserError: a run could not be made at all.
        Interrupted: the person stopped it.
    """
    policy = found.policy
    ours = all(found.sample(side).target.kind != "url" for side in SIDES)
    campaign = Campaign(command=tuple(command), restart=policy.restart if ours else "never", extension=extension)
    state = _State(found, out, campaign, say)
    try:
        await _find_rates(state)
        require_decidable(state.found)
        await _up_to(state, policy.pairs)
        if extension and policy.extended is not None and _look(state).extend:
            say(f"undecided after {policy.pairs} pairs: the declared extension to {policy.extended}")
            await _up_to(state, policy.extended)
    finally:
        for kept in state.kept.values():
            await kept.end()
        _account(state)
    return _look(state)


def _look(state: _State) -> Verdict:
    """The verdict on what was measured so far."""
    return judge(of_campaign(state.out, state.campaign), state.found.policy, state.campaign)


async def _find_rates(state: _State) -> None:
    """Points given as shares: what the baseline carries at the saturated point is 1x."""
    policy = state.found.policy
    shares = {name: point.share for name, point in policy.points.items() if point.share is not None}
    if not shares:
        return
    saturated = str(policy.saturated)
    state.say(f"what the baseline carries at {saturated}, for {', '.join(shares)}")
    run = await _run(state, "baseline", saturated, CALIBRATION, state.out / f"rates-{saturated}")
    carried = run.summary["throughput"].get("requests_per_s")
    if not carried or not run.summary["valid"]:
        raise UserError(
            f"the baseline could not be measured at {saturated}: {run.summary['why']}", where=f"points.{saturated}"
        )
    for name, share in shares.items():
        state.found = state.found.with_rate(name, float(f"{share * carried:.3g}"))
    state.campaign = replace(state.campaign, rates=dict(state.found.rates))


async def _up_to(state: _State, pairs: int) -> None:
    """Measure until there are so many pairs, or nothing more to learn."""
    for pair in range(state.campaign.pairs + 1, pairs + 1):
        if stop := _spent(state):
            state.campaign = replace(state.campaign, stopped=stop)
            break
        over = await _pair(state, pair, pairs)
        _account(state)
        if over:
            break


async def _pair(state: _State, pair: int, pairs: int) -> bool:
    """One pair at every point; whether nothing more is to be measured after it."""
    again = 0
    while True:
        runs = await _once(state, pair, pairs, f"-again{again}" if again else "")
        dead = state.campaign.gone is not None or any(run.died or run.refused_all for run in runs)
        bad = [one for run in runs for one in of_run(run)]
        if not bad or dead or state.repeats >= state.found.policy.repeat_invalid:
            break
        again += 1
        state.repeats += 1
        said = f"pair {pair} was measured again, since its measuring had failed ({bad[0].says})"
        state.say(said)
        state.campaign = replace(state.campaign, repeated=(*state.campaign.repeated, said))
    made = tuple((run.path.name, run.side, run.point, pair) for run in runs)
    state.campaign = replace(state.campaign, runs=(*state.campaign.runs, *made))
    return dead or bool(bad)


async def _once(state: _State, pair: int, pairs: int, tail: str) -> list[GateRun]:
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
                runs.append(await _run(state, side, point, pair, state.out / name))
            except Gone as gone:
                if not (runs or state.campaign.runs):
                    raise gone.__cause__ or gone from None
                state.say(str(gone))
                state.campaign = replace(state.campaign, gone=(side, str(gone)))
                return runs
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
        target = Kept(make_target(spec), stays=False)
    else:
        target = state.kept.setdefault(side, Kept(make_target(spec)))
    began = time.monotonic()
    try:
        await execute(spec, out, list(state.campaign.command), Watcher(), target)
    except UserError as error:
        # It was there before, or the other side is and this one was launched in vain: no wrong command line then.
        launched_in_vain = target.fell and spec.target.kind != "sim" and bool(state.measured - {side})
        if side in state.measured or launched_in_vain:
            raise Gone(f"its server did not come up ({error.what})") from error
        raise
    state.measured.add(side)
    state.dollars += (price_per_hour(spec) or 0.0) * (time.monotonic() - began) / 3600
    await asyncio.to_thread(build, out)
    run = read_run(out, side, point, pair)
    if run.manifest.state == "interrupted":
        raise Interrupted
    return run


def _account(state: _State) -> None:
    """What was spent so far, written down."""
    priced = price_per_hour(state.found.sample("baseline"))
    state.campaign = replace(
        state.campaign,
        seconds=time.monotonic() - state.began,
        dollars=None if priced is None else round(state.dollars, 4),
    )
    state.campaign.save(state.out)


def _spent(state: _State) -> str:
    """Why no further pair is begun; empty if the budget allows one."""
    budget, campaign = state.found.policy.budget, state.campaign
    if not campaign.pairs:
        return ""
    seconds = time.monotonic() - state.began
    if budget.seconds is not None and seconds + campaign.seconds_per_pair > budget.seconds:
        return f"the time of the budget was spent after {campaign.pairs} pairs"
    if budget.dollars is not None and state.dollars * (1 + 1 / campaign.pairs) > budget.dollars:
        return f"the money of the budget was spent after {campaign.pairs} pairs"
    return ""
