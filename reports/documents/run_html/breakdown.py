"""The section of a report on who got what: figures by class, tenant, endpoint, ..., and fairness between tenants."""

from typing import Any, Final

from tailgate.reports.documents.html_page import Cell, section, table, text
from tailgate.workloads.common.formatting import ms, percent

Columns = tuple[tuple[str, str, str], ...]
_SPLITS: Final = {
    "class": "By class",
    "tenant": "By tenant",
    "endpoint": "By endpoint",
    "tier": "By price tier",
    "prompt_tokens": "By prompt length, tokens",
    "turn": "By turn of a session",
}
# (heading, figure, percentile); a split is two tables, so that a window shows each of them whole
_TO_FIRST: Final[Columns] = (("TTFT p50", "ttft", "p50"), ("TTFT p99", "ttft", "p99"), ("TTFA p50", "ttfa", "p50"))
_TO_LAST: Final[Columns] = (
    ("ITL p50", "itl", "p50"), ("ITL p99", "itl", "p99"), ("TPOT p50", "tpot", "p50"), ("stall p99", "stall", "p99"),
    ("jitter p50", "jitter", "p50"), ("E2E p50", "e2e", "p50"), ("E2E p99", "e2e", "p99"),
)  # fmt: skip
_MOST_TENANTS: Final = 24


def interval(value: float | str | None, ends: list[float | str | None] | None, needs: int | None) -> Cell:
    """A figure with its 95 % interval below it, or how many requests it needs."""
    if value is None:
        return Cell(f'<span class="faint">needs {needs:,}</span>' if needs else "-")
    if ends is None:
        return Cell(text(ms(value)))
    low, high = ("?" if end is None else ms(end) for end in ends)
    return Cell(f'{text(ms(value))}<br><small class="faint">{text(low)} to {text(high)}</small>')


def splits(summary: dict[str, Any]) -> str:
    """One table a split; and fairness between tenants."""
    body = ""
    for name, groups in summary["splits"].items():
        served = ["", "n", "failed", "good", "good/s", "tokens/s", *_heads(_TO_FIRST), "TTFT p99, failed = ∞"]
        told = ["", *_heads(_TO_LAST), "E2E p99, failed = ∞"]
        body += f"<h3>{text(_SPLITS[name])}</h3>{table(served, map(_served, groups))}{table(told, map(_told, groups))}"
    if body:
        body = "<p>Milliseconds; below each figure its 95 % interval, or how many requests it needs.</p>" + body
    if fair := summary["fairness"]:
        body += _fairness(fair)
    return section("Who got what", body) if body else ""


def _heads(columns: Columns) -> list[str]:
    return [head for head, _, _ in columns]


def _served(one: dict[str, Any]) -> list[str | Cell]:
    """Requests, what became of them, and the way to their first tokens."""
    return [
        one["name"] or "(none)",
        f"{one['n']:,}",
        percent(one["failed_share"]),
        percent(one["attained"]),
        "-" if one["goodput_rps"] is None else f"{one['goodput_rps']:.2f}",
        "-" if one["output_tokens_per_s"] is None else f"{one['output_tokens_per_s']:,.1f}",
        *_latencies(one, _TO_FIRST),
        _worst(one, "ttft"),
    ]


def _told(one: dict[str, Any]) -> list[str | Cell]:
    """Tokens, and the way to the last of them."""
    return [one["name"] or "(none)", *_latencies(one, _TO_LAST), _worst(one, "e2e")]


def _latencies(one: dict[str, Any], columns: Columns) -> list[Cell]:
    return [interval(one[name][q], one[name][f"{q}_ci"], one["needs"].get(name, {}).get(q)) for _, name, q in columns]


def _worst(one: dict[str, Any], name: str) -> Cell:
    """The p99 that counts failures as infinitely late."""
    found = one["failed_as_inf"][name]
    return interval(found["p99"], found["p99_ci"], one["needs"].get(f"{name}_failed_as_inf", {}).get("p99"))


def _fairness(fair: dict[str, Any]) -> str:
    """The tenants that asked for most, the others together; the ratio is over all."""
    shares = sorted(fair["shares"], key=lambda one: -one["demand"])
    shown, rest = shares[:_MOST_TENANTS], shares[_MOST_TENANTS:]
    rows = [[s["tenant"], percent(s["demand"]), percent(s["service"]), ms(s["ttft_ms"])] for s in shown]
    if rest:
        demand, service = (sum(one[key] for one in rest) for key in ("demand", "service"))
        rows.append([f"{len(rest):,} others", percent(demand), percent(service), ""])
    q = f"p{fair['percentile']:g}"
    said = "Too few requests to compare tenants."
    if fair["worst_over_best"] is not None:
        said = f"The worst tenant's TTFT {q} is {fair['worst_over_best']:.2f} times the best one's."
        if fair["too_few"]:
            said += f" Too few requests to be compared: {fair['too_few']:,} of {len(shares):,} tenants."
    heads = ["tenant", "share of demand", "share of service", f"TTFT {q}, ms"]
    return f"<h3>Fairness between tenants</h3><p>{said}</p>{table(heads, rows)}"
