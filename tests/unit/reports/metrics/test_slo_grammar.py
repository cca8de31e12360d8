"""SLO strings: what they mean, and errors that point into them."""

import pytest

from tailgate.reports.metrics.slo import Condition, parse
from tailgate.workloads.common.errors import UserError


def only(line):
    (threshold,) = parse([line]).thresholds
    return threshold


@pytest.mark.parametrize(
    ("line", "metric", "statistic", "op", "limit"),
    [
        ("ttft: p99 < 800ms", "ttft", "p99", "<", 800.0),
        ("e2e: p95 <= 20s", "e2e", "p95", "<=", 20_000.0),
        ("itl: p99.9 < 1.5s", "itl", "p99.9", "<", 1500.0),
        ("tpot: mean < 60ms", "tpot", "mean", "<", 60.0),
        ("tpot: median<250us", "tpot", "p50", "<", 0.25),
        ("stall: max < 2m", "stall", "max", "<", 120_000.0),
        ("errors: < 0.1%", "errors", "", "<", 0.001),
        ("attained: >= 99%", "attained", "", ">=", 0.99),
        ("attained: >= 0.99", "attained", "", ">=", 0.99),
        ("output_tokens_per_s: > 1000/s", "output_tokens_per_s", "", ">", 1000.0),
    ],
)
def test_a_line_says_one_thing(line, metric, statistic, op, limit):
    found = only(line)
    assert (found.metric, found.statistic, found.op) == (metric, statistic, op)
    assert found.limit == pytest.approx(limit)


def test_a_mapping_and_lines_mean_the_same():
    spec = {"ttft": "p99 < 800ms", "good": "ttft < 800ms and tpot < 60ms and stall < 1s", "attained": ">= 99%"}
    assert parse(spec) == parse([f"{key}: {value}" for key, value in spec.items()])


def test_good_lists_conditions_on_one_request():
    good = parse({"good": "ttft < 800ms and stall <= 1s"}).good
    assert good == (Condition("ttft", "<", 800.0), Condition("stall", "<=", 1000.0))


def test_without_good_the_limits_of_percentile_thresholds_serve():
    slo = parse(["ttft: p50 < 200ms and p99 < 800ms", "itl: p99 < 50ms", "e2e: mean < 9s", "errors: < 1%"])
    assert slo.good == (Condition("ttft", "<", 800.0),)


def test_the_tightest_ttft_limit_is_known():
    assert parse(["ttft: p99 < 800ms", "good: ttft < 300ms"]).ttft_limit_ms == 300.0
    assert parse(["errors: < 1%"]).ttft_limit_ms is None


@pytest.mark.parametrize(
    ("line", "message", "points_to"),
    [
        ("ttft: p99 < 800", "a latency needs a unit", "800"),
        ("ttft: p99 800ms", "expected <, <=, > or >=", "800ms"),
        ("ttft: p100 < 1s", "expected a statistic", "p100"),
        ("ttft: < 1s", "expected a statistic", "< 1s"),
        ("ttft: p99 <", "expected a number", ""),
        ("ttft: p99 < 800ms or", "expected 'and' or the end", "or"),
        ("ttft: p99 < 8 parsecs", "a latency needs a unit", "8 parsecs"),
        ("good: itl < 3ms", "itl is pooled over requests", "itl"),
        ("good: ttft < 3ms and nonsense", "unknown figure", "nonsense"),
        ("errors: < 200%", "a share is a percentage", "200%"),
        ("goodput: > 3ms", "a rate is per second", "3ms"),
    ],
)
def test_an_error_points_into_the_string(line, message, points_to):
    with pytest.raises(UserError) as raised:
        parse([line], "--slo")
    said = str(raised.value)
    assert message in said
    *_, text, pointer = said.splitlines()
    at = pointer.index("^")
    assert text[at:].startswith(points_to)
    assert text[at:] or at == len(text)


def test_an_unknown_figure_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown figure 'tttf'\. Did you mean ttft"):
        parse(["tttf: p99 < 1s"])


def test_a_line_without_a_colon_is_answered_with_an_example():
    with pytest.raises(UserError, match="expected 'figure: condition'"):
        parse(["ttft p99"])


def test_no_slo_is_none():
    assert not parse(None)
    assert parse(None).good == ()
