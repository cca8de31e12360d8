"""Writes the gate's operating curve into docs/gate-operating-tables.md, between its two marks.

.venv/bin/python tests/bench/bench_gate_curve.py [SETS]
"""

import sys
from pathlib import Path

from tailgate.harness.experiments.gate.policy_template import policies
from tailgate.reports.documents.gate.operating_curve import report

PAGE = Path(__file__).parents[2] / "docs/gate-operating-tables.md"
BEGIN, END = "<!-- operating curve: made by tests/bench/bench_gate_curve.py -->", "<!-- end of the operating curve -->"


def put(page: str, inner: str, begin: str, end: str) -> str:
    """`page` with what stands between two marks replaced."""
    head, found, rest = page.partition(begin)
    _, also, tail = rest.partition(end)
    assert found and also, f"the marks {begin} and {end} are not in the page"
    return f"{head}{begin}\n\n{inner.strip()}\n\n{end}{tail}"


def main() -> None:
    """Simulate and write."""
    result = report(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, policies())
    PAGE.write_text(put(PAGE.read_text(), result.text, BEGIN, END))
    for promise in result.promises:
        print(f"{'holds' if promise.holds else 'BROKEN':<7}{promise.what}: {promise.measured}, must be {promise.must}")


if __name__ == "__main__":
    main()
