"""The operating curve in words: the simulation's tables, and what the gate promises held against them.

`tailgate gate --self-test` prints it; docs/gate-operating-tables.md holds it, put there by
`tests/bench/bench_gate_curve.py`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tailgate.reports.documents.model import Row, Table
from tailgate.reports.documents.render.markdown import table_lines
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.verdicts.gate import operating_curve as curve
from tailgate.reports.verdicts.gate.error_rule import ERROR_TAIL
from tailgate.reports.verdicts.gate.policy import DEFAULT_METRICS, Policy
from tailgate.reports.verdicts.gate.policy_curve import NIGHT_RUNS, PolicyPoint, policy_point


@dataclass(frozen=True)
class Promise:
    """What must hold, what was measured, and whether it does."""

    what: str
    must: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Report:
    """Markdown, and the promises in it."""

    text: str
    promises: tuple[Promise, ...]


def _table(head: Sequence[str], rows: Sequence[Row]) -> list[str]:
    return table_lines(Table(head, rows))


def exit_code(report: Report) -> int:
    return 0 if all(promise.holds for promise in report.promises) else 1


def report(sets: int, purposes: Mapping[str, Policy] | None = None) -> Report:
    """Simulate the grid, with `sets` of runs per condition, and hold the promises against it.

    `purposes`: policies by what they are for, each of which has its table and promises too.
    """
    cells = list(curve.grid(sets))
    errors = list(curve.error_grid(sets))
    tables = {name: _purpose_points(policy, sets) for name, policy in (purposes or {}).items()}
    held = (*promises(cells, errors, sets), *_purpose_promises(tables))
    rows = [[promise.what, promise.must, promise.measured, "yes" if promise.holds else "NO"] for promise in held]
    lines = [
        f"{sets:,} simulated sets of runs per condition; in brackets 95 % intervals.",
        "",
        *_table(["promise", "must be", "is", "holds"], rows),
        f"One metric with a margin of {100 * curve.MARGIN:g} %, no drift, independent runs, by the true slowdown:",
        "PASS / FAIL / INCONCLUSIVE in %.",
        "",
        *_plain(cells),
        "The same at worst over drift (0 and 3 %, shared by both sides) and correlation of successive runs (0, 0.5):",
        "",
        *_worst(cells),
        f"The default policy ({', '.join(f'{k} {margin}' for k, margin in DEFAULT_METRICS.items())}), nothing changed:",
        "",
        *_policy(sets),
        *(line for name, points in tables.items() for line in _purpose(name, (purposes or {})[name], points)),
        *_errors(errors),
        "<details><summary>Every condition</summary>",
        "",
        *_all(cells),
        "</details>",
        "",
    ]
    return Report("\n".join(lines), held)


def promises(
    cells: Sequence[curve.CurvePoint], errors: Sequence[curve.ErrorCurvePoint], sets: int
) -> Iterator[Promise]:
    same = [c for c in cells if c.slowdown == 0 and c.design.pairs == 5]
    for spread, most in ((0.02, 0.001), (0.04, 0.015)):
        failed = [c.failed for c in same if c.spread == spread]
        yield _at_most(f"false FAIL, one metric, 5 pairs, CV {100 * spread:g} %", failed, most)
    yield _at_most("false FAIL, one metric, 5 pairs, any CV, drift and correlation", [c.failed for c in same], 0.03)
    at_margin = [c.passed for c in cells if abs(c.slowdown - c.margin) < 1e-12]
    yield _at_most("PASS where the slowdown is the margin, anywhere in the grid", at_margin, 0.05)
    design = Design(5, 10)
    slow = curve.single_condition(design, 0.04, 0.15, sets=sets)
    what = "FAIL of a true +15 %, one metric, CV 4 %"
    yield _at_least(f"{what}, first look", slow.failed_first, 0.90)
    yield _at_least(f"{what}, after the extension", slow.failed, 0.97)
    policy = Policy()
    what = "PASS of the default policy, nothing changed"
    yield _at_least(f"{what}, CV 2 %, 5 pairs", curve.whole_policy(policy, 0.02, sets=sets).passed_first, 0.80)
    yield _at_least(f"{what}, CV 4 %, with the extension", curve.whole_policy(policy, 0.04, sets=sets).passed, 0.80)
    same_errors = [c.failed for c in errors if c.times == 1]
    yield _at_most("false FAIL of the error rule, anywhere in its table", same_errors, ERROR_TAIL)


def _purpose_points(policy: Policy, sets: int) -> list[PolicyPoint]:
    nights = (0.0,) if policy.window is None else (0.0, 0.02)
    return [policy_point(policy, spread, sets, night) for night in nights for spread in curve.SPREADS]


def _purpose_promises(tables: Mapping[str, Sequence[PolicyPoint]]) -> Iterator[Promise]:
    """Where nights have nothing of their own: what they have, no test of a few of them can tell from a change."""
    for name, points in tables.items():
        stored = any(point.nights for point in points)
        alike = [point for point in points if not point.nights]
        yield _at_most(f"false FAIL of gate init --for {name}, any CV", [point.failed for point in alike], 0.03)
        what = f"PASS of gate init --for {name} where one metric is worse by its margin, any CV"
        at_margin = [point.passed_at_margin for point in alike]
        # Pairs spend less than 5 %. Stored runs spend just that, so what is simulated scatters about it.
        yield _at_most(what, at_margin, 0.05) if not stored else _about(what, at_margin, 0.05)


def _purpose(name: str, policy: Policy, points: Sequence[PolicyPoint]) -> list[str]:
    how = f"{_name(Design(policy.pairs, policy.extended))} pairs"
    nightly = policy.window is not None
    if nightly:
        how = f"{NIGHT_RUNS} runs of tonight against the newest {policy.window} of earlier nights, {NIGHT_RUNS} a night"
    margins = ", ".join(f"{key} {margin}" for key, margin in policy.metrics.items())
    head = ["CV", *(["CV of nights"] if nightly else []), "PASS, nothing changed", "false FAIL"]
    head += ["PASS, one metric worse by its margin", "finds slowdowns above about"]
    rows = [
        [
            f"{100 * point.spread:g} %", *([f"{100 * point.nights:g} %"] if nightly else []), shown(point.passed),
            shown(point.failed), shown(point.passed_at_margin), f"{100 * point.finds:.0f} %",
        ]
        for point in points
    ]  # fmt: skip
    return [f"`gate init --for {name}`: {how} ({margins}).", "", *_table(head, rows)]


def _at_most(what: str, rates: Iterable[curve.Frequency], limit: float) -> Promise:
    worst = max(rates, key=lambda rate: rate.share)
    return Promise(what, f"≤ {100 * limit:g} %", shown(worst), worst.share <= limit)


def _about(what: str, rates: Iterable[curve.Frequency], limit: float) -> Promise:
    """Of what is just the limit by design: no more above it than chance explains."""
    worst = max(rates, key=lambda rate: rate.share)
    return Promise(what, f"{100 * limit:g} %, but for chance", shown(worst), worst.interval[0] <= limit)


def _at_least(what: str, rate: curve.Frequency, limit: float) -> Promise:
    return Promise(what, f"≥ {100 * limit:g} %", shown(rate), rate.share >= limit)


def shown(rate: curve.Frequency) -> str:
    """`1.05 % (0.91 to 1.20)`."""
    low, high = rate.interval
    return f"{100 * rate.share:.2f} % ({100 * low:.2f} to {100 * high:.2f})"


def _name(design: Design) -> str:
    return f"{design.pairs} → {design.extended}" if design.extended else str(design.pairs)


def _plain(cells: Sequence[curve.CurvePoint]) -> list[str]:
    calm = [c for c in cells if not c.drift and not c.correlation]
    slowdowns = list(dict.fromkeys(c.slowdown for c in calm))
    rows = []
    for spread in curve.SPREADS:
        for design in dict.fromkeys(c.design for c in calm):
            mine = {c.slowdown: c for c in calm if c.spread == spread and c.design == design}
            rows.append([f"{100 * spread:g} %", _name(design), *(_three(mine[slowdown]) for slowdown in slowdowns)])
    return _table(["CV", "pairs", *(f"+{100 * slowdown:g} %" for slowdown in slowdowns)], rows)


def _three(cell: curve.CurvePoint) -> str:
    return " / ".join(f"{100 * rate.share:.1f}" for rate in (cell.passed, cell.failed, cell.unsure))


def _worst(cells: Sequence[curve.CurvePoint]) -> list[str]:
    rows = []
    for spread in curve.SPREADS:
        for design in dict.fromkeys(c.design for c in cells):
            mine = [c for c in cells if c.spread == spread and c.design == design]
            false_fail = max((c.failed for c in mine if c.slowdown == 0), key=lambda r: r.share)
            false_pass = max((c.passed for c in mine if abs(c.slowdown - c.margin) < 1e-12), key=lambda r: r.share)
            rows.append([f"{100 * spread:g} %", _name(design), shown(false_fail), shown(false_pass)])
    return _table(["CV", "pairs", "false FAIL (nothing changed)", "PASS at the margin"], rows)


def _policy(sets: int) -> list[str]:
    rows = []
    for spread in curve.SPREADS:
        cell = curve.whole_policy(Policy(), spread, sets=sets)
        rows.append([f"{100 * spread:g} %", shown(cell.passed_first), shown(cell.passed), shown(cell.failed)])
    return _table(["CV", "PASS at 5 pairs", "PASS with the extension to 10", "false FAIL"], rows)


def _errors(cells: Sequence[curve.ErrorCurvePoint]) -> list[str]:
    rows = []
    for bursts in curve.BURSTS:
        for design in dict.fromkeys(c.design for c in cells):
            mine = [c.failed for c in cells if (c.bursts, c.design) == (bursts, design)]
            rows.append([f"{100 * bursts:g} %", _name(design), *map(shown, mine)])
    candidates = (f"candidate {100 * times * curve.SHARE:g} %" for times in curve.TIMES)
    head = ["CV of the shares beyond chance", "pairs", *candidates]
    return [
        f"The error rule, {curve.REQUESTS:,} requests a run of which {100 * curve.SHARE:g} % fail on the baseline, "
        "each by itself",
        "or in bursts: FAIL in %.",
        "",
        *_table(head, rows),
    ]


def _all(cells: Sequence[curve.CurvePoint]) -> list[str]:
    rows = [
        [
            f"{100 * c.spread:g} %", f"{100 * c.drift:g} %", f"{c.correlation:g}", _name(c.design),
            f"+{100 * c.slowdown:g} %", *(shown(rate) for rate in (c.passed, c.failed, c.unsure)),
        ]
        for c in cells
    ]  # fmt: skip
    return _table(["CV", "drift", "correlation", "pairs", "slowdown", "PASS", "FAIL", "INCONCLUSIVE"], rows)
