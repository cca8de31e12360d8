"""Money and energy: the bill, what it bought, who had it, what was wasted."""

from collections.abc import Sequence
from typing import Final

from tailgate.reports.cost.cost import Cost, GroupCost
from tailgate.reports.cost.energy import Energy
from tailgate.reports.documents.model import Block, Depth, Note, Row, Section, Table, facts, section
from tailgate.reports.summary.model import Summary
from tailgate.workloads.common.formatting import dollars, optional, percent, plain

# The largest groups are shown, the others together; summary.json has all.
_MOST_GROUPS: Final = 24
_DASH: Final = "nothing of this group that it could be divided by"


def cost(summary: Summary) -> Section:
    money, joules = summary.cost, summary.energy
    return section("Cost and energy", *(_bill(money) if money else ()), *(_energy(joules) if joules else ()))


def _energy(joules: Energy) -> list[Block]:
    values = {
        "energy of the steady window, J": joules.joules,
        "mean power, W": joules.mean_power_w,
        "J per output token": joules.j_per_output_token,
        "J per request": joules.j_per_request,
        "electricity, $": joules.usd,
        "gCO2": joules.gco2,
        "gCO2 per million output tokens": joules.gco2_per_million_output_tokens,
    }
    warnings = [Note(warning, tone="unsure", depth=Depth.PAGE) for warning in joules.warnings]
    return [facts(((label, optional(value)) for label, value in values.items()), "Energy"), *warnings]


def _bill(money: Cost) -> list[Block]:
    hour = _hour(money)
    values = {
        "$ per million output tokens (the whole bill)": money.per_million_output,
        "the same at the SLO (good requests' tokens only)": money.per_million_output_at_slo,
        "$ per million tokens, input and output": money.per_million_total,
        "split: $ per million input tokens": money.split_input,
        "split: $ per million cached input tokens": money.split_cached_input,
        "split: $ per million output tokens": money.split_output,
        "$ per request": money.per_request,
        "$ per good request": money.per_good_request,
        "$ per million output tokens at the stated demand": money.usd_per_million_output_at_demand,
    }
    idle, rate = money.idle_share, money.served_rps_at_demand
    served = "" if rate is None else f"{rate:.4g}"
    rows = [
        *((label, dollars(value)) for label, value in values.items()),
        ("idle share at the stated demand", "" if idle is None else percent(idle)),
        *((f"wasted on {kind} requests", _wasted(money, kind)) for kind in money.wasted),
        ("requests/s served at the stated demand (never more than the capacity)", served),
    ]
    window = (
        f"{hour} each ({money.price_source}): ${money.usd:.4f} for the steady window. The split adds up to the "
        f"bill; an output token counts as {money.price_ratio:g} input tokens."
    )
    heads = ["$", "share", "$ per request", "$ per million output"]
    kinds = {"class": money.by_class, "tenant": money.by_tenant, "tier": money.by_tier}
    groups = [
        Table([kind, *heads], _groups(parts), f"By {kind}", depth=Depth.PAGE, dash=_DASH)
        for kind, parts in kinds.items()
        if parts
    ]
    return [
        Note(" · ".join(part for part in (money.label, money.model, money.server) if part), depth=Depth.PAGE),
        Note(window, depth=Depth.PAGE),
        facts(rows),
        *groups,
    ]


def _hour(money: Cost) -> str:
    return f"{money.gpus} × {money.gpu or 'GPU'} at ${money.usd_per_gpu_hour:.4g} an hour"


def cost_line(summary: Summary) -> str:
    """What a million output tokens cost and how much energy one took, of these what is known."""
    money, joules = summary.cost, summary.energy
    parts = []
    if money and money.per_million_output is not None:
        at_slo = money.per_million_output_at_slo
        good = "" if at_slo is None else f", {dollars(at_slo)} at the SLO"
        parts.append(f"cost: {dollars(money.per_million_output)} per million output tokens{good} ({_hour(money)})")
    if joules and joules.j_per_output_token is not None:
        parts.append(f"energy: {plain(joules.j_per_output_token)} J per output token")
    return "; ".join(parts)


def _groups(parts: Sequence[GroupCost]) -> list[Row]:
    """The largest groups' parts of the bill, and the others' together, so that they add up to it."""
    shown = sorted(parts, key=lambda part: -part.usd)[:_MOST_GROUPS]
    rows: list[Row] = [
        [part.name or "(none)", dollars(part.usd), percent(part.share), dollars(part.usd_per_request) or "-",
         dollars(part.usd_per_million_output) or "-"]
        for part in parts if part in shown
    ]  # fmt: skip
    if rest := [part for part in parts if part not in shown]:
        usd, share = (sum(getattr(part, name) for part in rest) for name in ("usd", "share"))
        rows.append([f"{len(rest):,} others", dollars(usd), percent(share), "", ""])
    return rows


def _wasted(money: Cost, kind: str) -> str:
    """What was spent on failed, late or cancelled requests; at least, where some of their work isn't known."""
    usd, unknown = money.wasted[kind], money.unknown_work.get(kind, 0)
    if not unknown:
        return dollars(usd) if usd else ""
    work = f"the server's work on {unknown:,} that ended before a token is not known"
    return f"at least {dollars(usd)}: {work}" if usd else f"unknown: {work}"
