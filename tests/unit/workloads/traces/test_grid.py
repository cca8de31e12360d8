"""Arrivals are spread only where nearly all stamps prove that they lie on a coarse grid."""

from pathlib import Path

import numpy as np
import pytest
from tests.kit.traces import jsonl, spec

from tailgate.workloads.traces.grid import grid_of
from tailgate.workloads.traces.replay import load

SECOND = 1_000_000_000
COLUMNS = {"time": "t", "prompt_tokens": "in", "output_tokens": "out"}


def stamps(kind: str) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    rng = np.random.default_rng(3)
    sparse = np.cumsum(rng.integers(3200, 30_000, 40)) * 1_000_000
    match kind:
        case "a pair at once":
            sparse[12] = sparse[11]
            return sparse
        case "ten bursts":
            return np.repeat(sparse[:10], 5)
        case "ten bursts at regular distances":
            return np.repeat(np.arange(10) * 4 * SECOND, 5)
        case "half on whole seconds":
            return np.sort(np.where(np.arange(40) % 2, sparse // SECOND * SECOND, sparse))
        case "whole seconds":
            return sparse // SECOND * SECOND
        case "whole seconds but one":
            return np.sort(np.append(np.arange(60) * SECOND, 30_300_000_000))
        case "3 s to a few ms":
            return np.repeat(np.arange(40) * 3 * SECOND + rng.integers(-3, 4, 40) * 1_000_000, 4)
    raise ValueError(kind)


@pytest.mark.parametrize(
    ("kind", "grid_s"),
    [
        ("a pair at once", None), ("ten bursts", None), ("ten bursts at regular distances", None),
        ("half on whole seconds", None), ("whole seconds", 1), ("whole seconds but one", 1), ("3 s to a few ms", 3),
    ],
)  # fmt: skip
def test_a_grid_is_a_common_divisor_of_nearly_all_distances(kind: str, grid_s: int | None) -> None:
    grid = grid_of(stamps(kind))
    assert grid is None if grid_s is None else grid == pytest.approx(grid_s * SECOND, rel=0.002)


def test_simultaneous_requests_stay_simultaneous(tmp_path: Path) -> None:
    times = stamps("ten bursts") / 1e9
    file = jsonl(tmp_path / "t.jsonl", *({"t": t, "in": 5, "out": 1} for t in times.tolist()))
    replay = load(spec(file, "jsonl", columns=COLUMNS))
    assert replay.columns.at_ns.tolist() == (np.rint((times - times[0]) * 1e9)).astype(int).tolist()
    assert not replay.notices


def test_a_note_names_the_flag_that_switches_spreading_off(tmp_path: Path) -> None:
    records = ({"timestamp": 3000 * (k // 4), "input_length": 5, "output_length": 1} for k in range(40))
    file = jsonl(tmp_path / "t.jsonl", *records)  # ten ticks: what is known of Mooncake's clock is enough
    assert "--no-spread" in load(spec(file, "mooncake")).notices[-1]
    assert np.unique(load(spec(file, "mooncake", spread=False)).columns.at_ns).tolist() == [
        3 * SECOND * k for k in range(10)
    ]
