"""The section of a report on money and energy: the bill, what it bought, who had it, what was wasted."""

from typing import Any, Final

from tailgate.reports.documents.html_page import section, table, text
from tailgate.workloads.common.formatting import dollars, optional, percent

# The largest groups are shown, the others together; summary.json has all.
_MOST_GROUPS: Final = 24


def cost(summary: dict[str, Any]) -> str:
    """The bill, what it bought and what was wasted; energy beside it."""
    money, joules = summary["cost"], summary["energy"]
    if not money and not joules:
        return ""
    body = _bill(money) if money else ""
    if joules:
        rows = [
            ["energy of the steady window, J", optional(joules["joules"])],
            ["mean power, W", optional(joules["mean_power_w"])],
            ["J per output token", optional(joules["j_per_output_token"])],
            ["J per request", optional(joules["j_per_request"])],
            ["electricity, $", optional(joules["usd"])],
            ["gCO2", optional(joules["gco2"])],
            ["gCO2 per million output tokens", optional(joules["gco2_per_million_output_tokens"])],
        ]
        body += "<h3>Energy</h3>" + table(["", ""], [row for row in rows if row[1]])
        body += "".join(f'<p class="unsure">{text(warning)}</p>' for warning in joules["warnings"])
    return section("Cost and energy", body)


def _bill(money: dict[str, Any]) -> str:
    ratio = f"an output token counts as {money['price_ratio']:g} input tokens"
    rows = [
        ["$ per million output tokens (the whole bill)", dollars(money["per_million_output"])],
        ["the same at the SLO (good requests' tokens only)", dollars(money["per_million_output_at_slo"])],
        ["$ per million tokens, input and output", dollars(money["per_million_total"])],
        ["split: $ per million input tokens", dollars(money["split_input"])],
        ["split: $ per million cached input tokens", dollars(money["split_cached_input"])],
        ["split: $ per million output tokens", dollars(money["split_output"])],
        ["$ per request", dollars(money["per_request"])],
        ["$ per good request", dollars(money["per_good_request"])],
        ["$ per million output tokens at the stated demand", dollars(money["usd_per_million_output_at_demand"])],
        ["idle share at the stated demand", "" if money["idle_share"] is None else percent(money["idle_share"])],
        *([f"wasted on {kind} requests", wasted(money, kind)] for kind in money["wasted"]),
    ]
    if (served := money["served_rps_at_demand"]) is not None:
        rows.append(["requests/s served at the stated demand (never more than the capacity)", f"{served:.4g}"])
    whose = " · ".join(part for part in (money["label"], money["model"], money["server"]) if part)
    body = f"<p>{text(whose)}</p>" if whose else ""
    body += (
        f"<p>{money['gpus']} × {text(money['gpu'] or 'GPU')} at ${money['usd_per_gpu_hour']:.4g} an hour each "
        f"({text(money['price_source'])}): ${money['usd']:.4f} for the steady window. The split adds up to the bill; "
        f"{ratio}.</p>"
    )
    body += table(["", ""], [row for row in rows if row[1]])
    for key, label in (("by_class", "class"), ("by_tenant", "tenant"), ("by_tier", "tier")):
        if money[key]:
            heads = [label, "$", "share", "$ per request", "$ per million output"]
            body += f"<h3>By {label}</h3>" + table(heads, _groups(money[key]))
    return body


def _groups(parts: list[dict[str, Any]]) -> list[list[str]]:
    """The largest groups' parts of the bill, and the others' together, so that they add up to it."""
    shown = sorted(parts, key=lambda one: -(one["usd"] or 0.0))[:_MOST_GROUPS]
    rows = [
        [one["name"] or "(none)", dollars(one["usd"]), percent(one["share"]), dollars(one["usd_per_request"]),
         dollars(one["usd_per_million_output"])]
        for one in parts if one in shown
    ]  # fmt: skip
    if rest := [one for one in parts if one not in shown]:
        usd, share = (sum(one[key] or 0.0 for one in rest) for key in ("usd", "share"))
        rows.append([f"{len(rest):,} others", dollars(usd), percent(share), "", ""])
    return rows


def wasted(money: dict[str, Any], kind: str) -> str:
    """What was spent on failed, late or cancelled requests; at least, where some of their work isn't known."""
    usd, unknown = money["wasted"][kind], money["unknown_work"].get(kind, 0)
    if not unknown:
        return dollars(usd) if usd else ""
    work = f"the server's work on {unknown:,} that ended before a token is not known"
    return f"at least {dollars(usd)}: {work}" if usd else f"unknown: {work}"
