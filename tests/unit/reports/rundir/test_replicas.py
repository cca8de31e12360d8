"""Which samples can't be of one server: start times that go back, counters that fall without a restart."""

from collections.abc import Sequence

import pyarrow as pa
import pytest

from tailgate.reports.rundir.replicas import several_behind, without
from tailgate.reports.rundir.telemetry import SERVER_SCHEMA, Telemetry

BORN, CPU, TOKENS = "process_start_time_seconds", "process_cpu_seconds_total", "vllm:generation_tokens_total"


def sampled(**endpoints: dict[str, Sequence[float]]) -> Telemetry:
    """One value a second of each name, by endpoint."""
    rows = [
        (t, endpoint, name, "{}", float(value))
        for endpoint, by_name in endpoints.items()
        for name, values in by_name.items()
        for t, value in enumerate(values)
    ]
    names = SERVER_SCHEMA.names
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], SERVER_SCHEMA)
    return Telemetry(table, ("endpoint", "labels"))


@pytest.mark.parametrize(
    "series",
    [
        {BORN: [100, 130, 100, 130]},
        {BORN: [130, 130, 100]},
        {BORN: [1, 2, 3, 1], TOKENS: [0, 0, 0, 9]},  # three replicas
        {BORN: [100] * 5, CPU: [8, 3, 8, 3, 9]},  # begun within one tick of the clock
        {BORN: [100] * 5, TOKENS: [80, 30, 90, 40, 100]},
        {TOKENS: [80, 30, 90, 40, 100]},  # a server that doesn't tell when it began
    ],
)
def test_several_servers_are_told_apart(series: dict[str, Sequence[float]]) -> None:
    assert several_behind(sampled(a=series, b={BORN: [7, 7, 7], TOKENS: [0, 1, 2]})) == ("a",)


@pytest.mark.parametrize(
    "series",
    [
        {BORN: [100] * 4, CPU: [1, 2, 3, 4], TOKENS: [0, 5, 9, 9]},
        {BORN: [100, 100, 130, 130], CPU: [50, 60, 1, 2], TOKENS: [500, 600, 0, 10]},  # a restart
        {BORN: [100, 130, 160, 160], TOKENS: [500, 0, 0, 10]},  # a rolling one
        {TOKENS: [500, 600, 0, 10]},  # a restart that nothing else tells
        {BORN: [100], TOKENS: [5]},
        {"some_gauge": [5, 1, 5, 1, 5]},
        {},
    ],
)
def test_one_server_is_one_server_restarted_or_not(series: dict[str, Sequence[float]]) -> None:
    assert several_behind(sampled(a=series)) == ()


def test_only_whether_it_answered_is_kept_of_a_mixture() -> None:
    kept = without(sampled(a={"up": [1, 0], TOKENS: [1, 2]}, b={TOKENS: [3, 4]}), ["a"])
    assert [(row["endpoint"], row["name"]) for row in kept.table.to_pylist()] == [("a", "up")] * 2 + [("b", TOKENS)] * 2
    assert without(sampled(a={TOKENS: [1, 2]}), ["a"]).series("up") == []
