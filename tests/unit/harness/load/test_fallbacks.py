"""What the load generator had to do without is said once, and the manifest says what was done."""

from typing import Any

import pytest

from tailgate.harness.load import fallbacks
from tailgate.reports.rundir.manifest import Manifest


def end(**changed: Any) -> dict[str, Any]:
    told = {"op": "end", "injector": 0, "unstamped": 0, "reads": 10_000, "nice": 0, "acks_delayed": False}
    return {**told, "waiting_peers": [], **changed}


@pytest.fixture
def manifest(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setattr(fallbacks, "AVAILABLE", True)
    return Manifest(run="r")


def test_where_nothing_is_missing_nothing_is_said(manifest: Manifest) -> None:
    assert fallbacks.when_ready(manifest, stamps=True) == fallbacks.when_ended(manifest, end()) == []
    assert (manifest.stamp, manifest.acks_delayed, manifest.notices) == ("kernel", False, [])


def test_without_kernel_stamps_it_is_said_whose_they_are(manifest: Manifest) -> None:
    (said,) = fallbacks.when_ready(manifest, stamps=False)
    assert "no receive time stamps" in said and manifest.stamp == "user" and manifest.notices == [said]
    assert fallbacks.when_ended(manifest, end(unstamped=10_000)) == []  # none was asked for


def test_stamps_that_are_missing_here_and_there_are_counted(manifest: Manifest) -> None:
    fallbacks.when_ready(manifest, stamps=True)
    assert fallbacks.when_ended(manifest, end(unstamped=10)) == [] and manifest.stamp == "kernel"
    (said,) = fallbacks.when_ended(manifest, end(unstamped=11))
    assert "11 of 10,000 reads" in said and manifest.stamp == "mixed"


def test_without_the_compiled_reader_it_is_said_what_that_costs(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallbacks, "AVAILABLE", False)
    (said,) = fallbacks.when_ready(manifest, stamps=True)
    assert "read in Python" in said and "C compiler" in said
    elsewhere = Manifest(run="r", workers=[{"name": "w"}])
    assert fallbacks.when_ready(elsewhere, stamps=True) == []


def test_a_server_that_waits_for_acknowledgements_is_named_once_by_however_many_injectors(manifest: Manifest) -> None:
    told = [
        end(acks_delayed=True, waiting_peers=["http://a"]),
        end(acks_delayed=True, waiting_peers=["http://a"]),
        end(),
    ]
    said = [notice for message in told for notice in fallbacks.when_ended(manifest, message)]
    assert len(said) == 1 and said == manifest.notices
    assert said[0].startswith("http://a looks as if") and "target.delayed_acks: never" in said[0]
    assert manifest.acks_delayed is True


def test_the_worst_niceness_counts(manifest: Manifest) -> None:
    for nice in (-15, 0, -15):
        fallbacks.when_ended(manifest, end(nice=nice))
    assert manifest.injector_nice == 0
