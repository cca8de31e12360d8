"""Where a column of the plan is null, read from its bits."""

import pyarrow as pa
import pytest

from tailgate.loadgen.injector.schedule.plan_share import _is_valid

COLUMN = pa.array([1, None, 3, 4, None] * 5, pa.int64())


@pytest.mark.parametrize(
    "column", [COLUMN, COLUMN[3:], COLUMN[7:12], COLUMN[:0], pa.array([1, 2]), pa.nulls(3, pa.int64())]
)
def test_it_says_what_arrow_says(column: pa.Array) -> None:
    assert _is_valid(column).tolist() == column.is_valid().to_pylist()
