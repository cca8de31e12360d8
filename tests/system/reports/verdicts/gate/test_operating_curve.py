"""The operating curve keeps what docs/gate.md promises."""

from tailgate.reports.documents.gate.operating_curve import report


def test_every_promise_holds():
    found = report(20_000)
    assert len(found.promises) == 9
    assert {one.what: one.found for one in found.promises if not one.holds} == {}
