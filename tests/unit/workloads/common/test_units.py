import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.workloads.common.units import parse_duration, parse_rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("2d", 172800),
        ("1.5m", 90),
        (3, 3),
        ("7", 7),
        ("1e3s", 1000),
    ],
)
def test_a_duration_reads_as_it_is_written(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "per_second"), [("12/s", 12), ("600/min", 10), ("3600/h", 1), (0.5, 0.5), ("8 rps", 8), ("1e3/s", 1000)]
)
def test_a_rate_reads_as_it_is_written(text: object, per_second: float) -> None:
    assert parse_rate(text) == pytest.approx(per_second)


@pytest.mark.parametrize("text", ["", "s", "10x", "10m5", "-3s", -1, "nan", "inf", None, True, [3]])
def test_what_is_no_duration_is_refused_with_the_forms_there_are(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a duration .*90s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "12/q", "0/s", 0, -1, "/s", None, "nan"])
def test_what_is_no_rate_is_refused_with_the_forms_there_are(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a rate .*12/s"):
        parse_rate(text)


@given(st.integers(0, 300), st.integers(0, 59), st.integers(0, 59))
def test_the_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds
