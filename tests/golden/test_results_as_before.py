"""Stored runs, policies, profiles and traces give the results they gave when they were stored, to the last digit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.golden.results import ALL, EXPECTED, differences


def stored(folders: set[str]) -> dict[str, Any]:
    files = [path for folder in folders for path in sorted((EXPECTED / folder).glob("*.json"))]
    return {path.relative_to(EXPECTED).as_posix(): json.loads(path.read_bytes()) for path in files}


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_results_are_as_before(make: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    found = json.loads(json.dumps(make(tmp_path)))
    lines = differences(stored({name.split("/")[0] for name in found}), found)
    assert not lines, f"{len(lines)} differences:\n" + "\n".join(lines[:40])
