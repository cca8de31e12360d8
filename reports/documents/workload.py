"""A workload's preview: its numbers beside those that its profile states, and its figures; on a page or a terminal."""

from typing import TYPE_CHECKING, Any

from tailgate.reports.documents.model import Depth, Document, FigureRow, Note, Notes, Row, Table, section

if TYPE_CHECKING:
    from tailgate.workloads.plan.plan import Plan


def workload_document(
    figures: dict[str, Any],
    plan: "Plan | None" = None,
    facts: dict[str, Any] | None = None,
    name: str = "",
    about: str = "",
) -> Document:
    """The numbers of `plan_figures` beside the facts of a profile; figures where there is a plan to draw."""
    plots = []
    if plan is not None:
        from tailgate.reports.documents.plots.workload import plan_plots

        plots = plan_plots(plan)
    rows = [*_timing(figures, facts or {}), *_lengths(figures, facts or {})]
    head = ["figure", "plan", "source"] if facts else ["figure", "plan"]
    table = Table(head, [row[: len(head)] for row in rows], words=range(3), dash="too few arrivals to tell")
    hashed = Note(figures["plan_hash"], "Plan hash:", depth=Depth.PAGE)
    notices = Notes([Note(notice) for notice in figures["notices"]])
    return Document(
        title=f"{name}: workload",
        heading=name,
        about=about,
        sections=[section("", table, hashed), section("To know", notices), section("Figures", FigureRow(plots))],
    )


def _timing(figures: dict[str, Any], facts: dict[str, Any]) -> list[Row]:
    size = f"{figures['requests']:,} ({figures['loop']} loop, {figures['sessions']:,} sessions)"
    rows: list[Row] = [["requests", size, ""]]
    if "starts_per_s" not in figures:
        return rows
    rate = f"{figures['starts_per_s']:g} over {figures['seconds']:g} s"
    rows.append(["arrivals per second", rate, _fact(facts.get("rate_per_s"))])
    rows.append(["variation of gaps (Poisson: 1)", _number(figures["gap_cv"]), ""])
    for entry in figures["dispersion"]:
        window = f"{entry['window_s']:g}"
        ends = "-" if entry["value"] is None else "{value:.4g} ({low:.4g} to {high:.4g})".format(**entry)
        fact = _fact(facts.get("dispersion", {}).get(f"{window}s"))
        rows.append([f"dispersion at {window} s (Poisson: 1)", ends, fact])
    for window, value in figures["peak_to_mean"].items():
        rows.append([f"peak over mean, {window}", _number(value), _fact(facts.get("peak_to_mean", {}).get(window))])
    for kind in ("prompt", "output"):
        rows.append([f"{kind} tokens per second", _number(figures[f"{kind}_tokens_per_s"]), ""])
    return rows


def _lengths(figures: dict[str, Any], facts: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for key in ("prompt_tokens", "output_tokens", "turns"):
        if key in figures:
            quantiles = ", ".join(f"{q} {figures[key][q]:,.0f}" for q in ("p50", "p90", "p99", "max"))
            rows.append([key.replace("_", " "), quantiles, _fact(facts.get(key))])
    hit = facts.get("prefix_hit_tokens")
    seen, stated = (f"{100 * share:.1f} %" for share in (figures["prompt_tokens_seen_before"], hit or 0.0))
    rows.append(["rank correlation of prompt and output", _number(figures["rank_correlation"]), ""])
    rows.append(["prompt tokens seen before (unlimited cache)", seen, "" if hit is None else stated])
    for by in ("class", "tenant"):
        for name, group in figures.get(f"by_{by}", {}).items():
            prompt, output = (group[f"{kind}_tokens"]["p50"] for kind in ("prompt", "output"))
            lengths = f"prompt p50 {prompt:,.0f}, output p50 {output:,.0f}"
            rows.append([f"{by} {name}", f"{group['requests']:,} requests, {lengths}", ""])
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def _fact(fact: Any) -> str:
    if isinstance(fact, dict):
        return ", ".join(f"{key} {f'{v:,}' if isinstance(v, int) else v}" for key, v in fact.items())
    return "" if fact is None else str(fact)
