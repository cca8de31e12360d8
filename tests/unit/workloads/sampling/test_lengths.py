from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tailgate.workloads.sampling.distribution_grammar import parse
from tailgate.workloads.sampling.distributions import whole
from tailgate.workloads.sampling.random_streams import RandomField, RandomStream

U = (np.arange(20_000) + 0.5) / 20_000


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("lognormal(6.2, 0.8)", stats.lognorm(0.8, scale=np.exp(6.2))),
        ("exponential(20)", stats.expon(scale=20)),
        ("gamma(0.4, 100)", stats.gamma(0.4, scale=250)),
        ("gamma(3, 100)", stats.gamma(3, scale=100 / 3)),
        ("weibull(0.5, 100)", stats.weibull_min(0.5, scale=50)),
        ("pareto(1.5, 10)", stats.pareto(1.5, scale=10)),
    ],
)
def test_a_laws_quantiles_are_scipys(text: str, law: Any) -> None:
    ours, theirs = parse(text).quantile(U), law.ppf(U)
    assert np.max(np.abs(ours - theirs) / (theirs + 1e-3)) < 2e-3


def test_uniform_gives_both_ends_their_full_share() -> None:
    values = whole(parse("uniform(1, 4)").numbers(RandomStream(1, "u"), 40_000))
    assert np.bincount(values)[1:].tolist() == pytest.approx([10_000] * 4, rel=0.05)


def test_a_mixture_keeps_the_shares_of_its_parts() -> None:
    values = whole(parse("mixture(3: 100, 1: uniform(900, 1000))").numbers(RandomStream(1, "m"), 40_000))
    assert (values == 100).mean() == pytest.approx(0.75, abs=0.01)
    assert values.max() <= 1000


def test_clip_and_scale_do_what_they_say() -> None:
    values = whole(parse("clip(scale(uniform(1, 100), 10), 50, 500)").numbers(RandomStream(1, "c"), 10_000))
    assert (values.min(), values.max()) == (50, 500)


def test_samples_of_a_grid_have_the_grids_quantiles() -> None:
    values = whole(parse("grid:azure_2023_conv.input").numbers(RandomStream(1, "g"), 100_000))
    assert np.median(values) == pytest.approx(1020, rel=0.01)
    assert np.quantile(values, 0.9) == pytest.approx(2734, rel=0.05)


@pytest.mark.parametrize(
    "text",
    ["512", "lognormal(5, 1)", "quantiles(0: 1, 0.5: 10, 1: 100)", "mixture(0.5: 10, 0.5: lognormal(5, 1))",
     "grid:mooncake_conversation.input", "gamma(0.3, 50)"],
)  # fmt: skip
def test_quantile_functions_ascend_and_samples_are_at_least_one(text: str) -> None:
    law = parse(text)
    assert (np.diff(law.quantile(U)) >= 0).all()
    assert whole(law.numbers(RandomStream(1, text), 1000)).min() >= 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lognorm(1, 2)", "column 1: there is no distribution called 'lognorm'"),
        ("lognormal(1)", "lognormal takes mu, sigma: 2 numbers, not 1"),
        ("lognormal(600, 2)", "natural logarithm"),
        ("512 tokens", "column 5: nothing may follow"),
        ("uniform(5, 1)", "low <= high"),
        ("uniform(1, 5", "column 13: expected '\\)'"),
        ("grid:azure_conv.input", "near it: azure_2023_conv.input"),
        ("quantiles(0.1: 1, 1: 2)", "from 0: to 1:"),
        ("-5", "negative"),
        ("", "ends too early"),
        ("gamma(0, 5)", "shape must be above 0"),
        ("$$$", "expected a length"),
    ],
)
def test_a_wrong_expression_says_where_and_what(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(text)


@given(st.text(alphabet="lognrmauif(),:. 0123456789-e", max_size=30))
def test_any_text_is_a_law_or_a_value_error(text: str) -> None:
    try:
        law = parse(text)
    except ValueError:
        return
    assert np.isfinite(law.quantile(RandomField(1, "x").uniform(np.arange(5)))).all()
