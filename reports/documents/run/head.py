"""What is read first: the numbers on cards, or in two lines; objectives; the command to run it again."""

import shlex

from tailgate.reports.documents import model as doc
from tailgate.reports.documents.run.intervals import between, in_words
from tailgate.reports.documents.run.workload import workload_line
from tailgate.reports.metrics.catalogue import METRICS
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.model import SloSummary, Summary
from tailgate.reports.summary.objective_model import Objective
from tailgate.workloads.common.formatting import dollars, ms, percent, whole, with_unit


def head(summary: Summary, manifest: Manifest | None) -> doc.Section:
    return doc.section(
        "",
        doc.Cards(_cards(summary)),
        doc.Note(_load_line(summary), depth=doc.Depth.BRIEF),
        doc.Note(workload_line(summary.workload), depth=doc.Depth.BRIEF),
        _objectives(summary.objectives),
        doc.Note(good_line(summary.slo) if summary.slo else "", depth=doc.Depth.PAGE),
        doc.Code(_again(manifest), "Run it again:", depth=doc.Depth.PAGE) if manifest else None,
    )


def _again(manifest: Manifest) -> str:
    """The command without the run directory, which is there now."""
    words = [word for word in manifest.command_line if not word.startswith("--out=")]
    if "--out" in words:
        place = words.index("--out")
        del words[place : place + 2]
    return shlex.join(words) if words else "tailgate run (the command is not known)"


def _load_line(summary: Summary) -> str:
    load, rates = summary.load, summary.throughput
    parts = [f"{load.loop} loop, {load.duration_s:.1f} s"]
    if load.users:
        flight = f", {load.in_flight.mean:.1f} requests in flight" if load.in_flight else ""
        parts[0] += f", {load.users['mean']:.1f} users (at most {load.users['max']:.0f}){flight}"
    parts.append(f"{load.requests['ok']:,} of {load.requests['planned']:,} ok")
    if load.offered_rps is not None:
        parts.append(f"offered {load.offered_rps:.2f}/s, sent {load.sent_rps:.2f}/s")
    if rates:
        estimated = f" ({percent(rates.estimated_share)} of the output estimated)" if rates.estimated_share else ""
        output, prompt = whole(rates.output_tokens_per_s), whole(rates.input_tokens_per_s)
        parts.append(f"{output} output and {prompt} input tokens/s{estimated}")
    return "; ".join(parts)


def good_line(slo: SloSummary) -> str:
    own = [f"class {name}: {' and '.join(means)}" for name, means in slo.good_means_by_class.items()]
    means = "; ".join(part for part in (" and ".join(slo.good_means), *own) if part)
    if not means:
        return ""
    if slo.attained is None:
        return f"How many requests were good ({means}) is not known."
    return f"{100 * slo.attained:.2f} % of requests were good ({means}): {slo.goodput_rps:.2f} good requests/s."


def _cards(summary: Summary) -> list[doc.Card]:
    load, rates, errors = summary.load, summary.throughput, summary.errors
    loop = "" if load.loop == "open" else " (closed loop)"
    cards = []
    for name, q in (("ttft", "p50"), ("ttft", "p99"), ("itl", "p99"), ("e2e", "p99")):
        value = ms(summary.latency_ms[name].statistic(q))
        cards.append(doc.Card(f"{METRICS[name].label} {q}{loop}, ms", value, _range(summary, name, q)))
    if rates:
        price = summary.cost.per_million_output if summary.cost else None
        below = "steady window" if price is None else f"{dollars(price)} per million"
        below = f"{percent(rates.estimated_share)} of it estimated" if rates.estimated_share else below
        cards.append(doc.Card("output, tokens/s", whole(rates.output_tokens_per_s), below))
    if load.offered_rps is not None:
        name = "offered" if load.loop == "open" else "sent"
        goodput = summary.slo.goodput_rps if summary.slo else None
        good = "" if goodput is None else f", {goodput:.2f} good"
        cards.append(doc.Card(f"{name}, req/s", f"{load.offered_rps:.2f}", f"{load.duration_s:.0f} s{good}"))
    share = "-" if errors.share is None else f"{100 * errors.share:.2f}"
    held = sum(check.holds for check in summary.checks)
    return [
        *cards,
        doc.Card("failed, %", share, f"{errors.failed:,} of {load.requests['planned']:,}"),
        doc.Card("validity, checks", f"{held}/{len(summary.checks)}", "valid" if summary.valid else "INVALID"),
    ]


def _range(summary: Summary, name: str, q: str) -> str:
    ends = summary.latency_ms[name].interval(q)
    if ends is None:
        needs = summary.percentile_needs.get(name, {}).get(q)
        return f"needs {needs:,} requests" if needs else ""
    return in_words(ends)


def _objectives(objectives: list[Objective]) -> doc.Table:
    rows: list[doc.Row] = []
    for objective in objectives:
        result = doc.TableCell(objective.result, tone=doc.TONES.get(objective.result, "unsure"))
        rows.append([objective.objective, result, objective.found, objective_bounds(objective), objective.why])
    columns = 5 if any(objective.why for objective in objectives) else 4  # reasons only where there is one
    head = ["objective", "result", "found", "95 % bounds", ""]
    return doc.Table(head[:columns], [row[:columns] for row in rows], words=(0, 1, 4))


def objective_bounds(objective: Objective) -> str:
    """Of the figure; of a percentile that has none those of the share over its limit; a dash where there are none."""
    scale, unit = (100.0, "%") if objective.unit == "fraction" else (1.0, objective.unit)
    ends = objective.lower_bound, objective.upper_bound
    low, high = ("" if end is None else with_unit(scale * end, unit) for end in ends)
    return between(low, high) or (objective.beyond.bounds_in_words() if objective.beyond else "-")
