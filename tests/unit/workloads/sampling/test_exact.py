"""The arithmetic against NumPy's and SciPy's, which are accurate but not bit-for-bit the same everywhere."""

import numpy as np
from scipy import special, stats

from tailgate.workloads.sampling import portable_math
from tailgate.workloads.sampling.random_streams import RandomField, RandomStream


def test_logarithm_and_exponential_are_within_two_units_in_the_last_place() -> None:
    x = np.exp(np.linspace(-690, 690, 100_001))
    assert np.max(np.abs(portable_math.log(x) - np.log(x)) / np.maximum(np.abs(np.log(x)), 1e-12)) < 5e-16
    y = np.linspace(-690, 690, 100_001)
    assert np.max(np.abs(portable_math.exp(y) / np.exp(y) - 1)) < 5e-16


def test_normal_quantile_and_probability_are_scipys() -> None:
    p = np.concatenate([np.linspace(1e-6, 1 - 1e-6, 100_001), 10.0 ** -np.arange(7, 15)])
    assert np.max(np.abs(portable_math.normal_quantile(p) - special.ndtri(p))) < 1e-13
    z = np.linspace(-6, 6, 10_001)
    assert np.max(np.abs(portable_math.normal_probability(z) - special.ndtr(z))) < 1e-14


def test_gamma_function_is_scipys() -> None:
    for x in (0.05, 0.5, 1.0, 3.7, 25.0, 150.0):
        assert portable_math.log_gamma_function(x) == np.float64(special.gammaln(x)) or np.isclose(
            portable_math.log_gamma_function(x), special.gammaln(x), rtol=1e-12, atol=1e-13
        )


def test_interpolation_holds_its_ends_and_takes_the_later_side_of_a_jump() -> None:
    xs, ys = np.array([0.0, 1.0, 1.0, 2.0]), np.array([0.0, 1.0, 5.0, 7.0])
    assert portable_math.interpolate(np.array([-1.0, 0.5, 1.0, 1.5, 9.0]), xs, ys).tolist() == [0.0, 0.5, 5.0, 6.0, 7.0]


def test_the_bits_of_streams_and_fields_are_pinned() -> None:
    # If this fails, every plan hash ever stored is void: bump hashing.GENERATOR.
    assert RandomStream(7, "a").u64(2).tolist() == [2549140616962646461, 11927982930552699829]
    assert RandomField(7, "a").u64(np.arange(2), 3).tolist() == [4052420153301085224, 11932641913312481832]
    assert RandomStream(7, "a").gamma(0.4, 3).tolist() == [0.03019173241156187, 0.2591914356478751, 0.09527183368109414]


def test_a_streams_laws_are_the_asked_ones() -> None:
    assert stats.kstest(RandomStream(1, "n").normal(50_000), "norm").pvalue > 1e-3
    assert stats.kstest(RandomStream(1, "e").exponential(50_000), "expon").pvalue > 1e-3
    for shape in (0.05, 0.4, 0.94, 3.0):
        assert stats.kstest(RandomStream(1, "g", str(shape)).gamma(shape, 50_000), "gamma", args=(shape,)).pvalue > 1e-3


def test_a_field_is_uniform_and_uncorrelated_along_both_indices() -> None:
    grid = RandomField(3, "f").uniform(np.repeat(np.arange(300), 300), np.tile(np.arange(300), 300)).reshape(300, 300)
    assert stats.kstest(grid.ravel(), "uniform").pvalue > 1e-3
    for a, b in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / 300


def test_streams_of_other_names_are_independent() -> None:
    a, b = RandomStream(1, "arrivals", "x").uniform(50_000), RandomStream(1, "arrivals", "y").uniform(50_000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(50_000)
