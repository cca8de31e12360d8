"""What a machine that is busy with other things fails by, and nothing else does."""

from typing import Any

import pytest

BUSY = frozenset(("own_error", "offered_load", "bursts"))


def skip_if_too_busy(verdict: dict[str, Any]) -> None:
    """Skip a test whose gate could not measure here. Where anything else makes it INVALID, the test fails."""
    if verdict["verdict"] == "INVALID":
        others = {obstacle["check"] for obstacle in verdict["obstacles"]} - BUSY
        assert verdict["obstacles"] and not others, verdict["obstacles"]
        pytest.skip(f"the machine was too busy to measure: {verdict['why']}")
