"""What was measured of kernels comes back at the sizes that were measured, and nothing is faster than its peak."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.harness.engine.model.curves import Peak, curves, measured_gpus

H100 = Peak(3.35e12, {"bf16": 989.5e12, "fp8": 1979e12})
CURVES = curves("h100-sxm", H100)
SIZES = st.integers(9, 15).map(lambda bits: 2**bits)


def at(value: float) -> np.ndarray:
    return np.array([float(value)])


def test_a_measured_product_comes_back():
    # vLLM 0.24.0 on an H100, bf16: 4,096 rows times 4,096 x 4,096 take between 1 / 0.9 and 1 / 0.7 of the peak's time.
    peak_s = 2 * 4096**3 / 989.5e12
    assert 0.7 < peak_s / CURVES.gemm_s(at(4096), 4096, 4096, "bf16")[0] < 0.9


@given(SIZES, SIZES, st.integers(1, 32_768), st.sampled_from(["bf16", "fp8", "fp8_block", "int4"]))
def test_no_product_is_faster_than_the_peak(inputs, outputs, rows, dtype):
    seconds = CURVES.gemm_s(at(rows), inputs, outputs, dtype)[0]
    peak = H100.flops["fp8" if dtype.startswith("fp8") else "bf16"]
    assert seconds >= 2 * rows * inputs * outputs / peak


@pytest.mark.parametrize("gpu", measured_gpus())
def test_more_work_takes_no_less_time(gpu):
    of = curves(gpu, Peak(2e12, {"bf16": 400e12, "fp8": 800e12, "fp4": 1600e12}))
    sequences = np.full(14, 16.0)
    tokens = 2.0 ** np.arange(3, 14)
    # Kernels change with the size, so that a little more work may be done a little sooner.
    assert (np.diff(of.decode_attention_s(sequences, 2.0 ** np.arange(4, 18), 8, 128, "bf16")) > -1e-6).all()
    assert (np.diff(of.gemm_s(tokens, 4096, 14336, "bf16")) > -2e-5).all()
    assert (np.diff(of.all_reduce_s(2.0 ** np.arange(9, 28, 2), 2)) > -1e-6).all()


def test_decoding_depends_on_all_that_is_read_not_on_whose_it_is():
    few = CURVES.decode_attention_s(at(16), at(8192), 8, 128, "bf16")[0]
    many = CURVES.decode_attention_s(at(128), at(1024), 8, 128, "bf16")[0]
    assert many == pytest.approx(few, rel=0.15)


def test_an_unmeasured_dtype_takes_the_shares_of_the_nearest():
    assert CURVES.gemm_s(at(1), 8192, 8192, "int4")[0] < 0.35 * CURVES.gemm_s(at(1), 8192, 8192, "bf16")[0]


def test_few_tokens_read_few_experts():
    one, all_ = (CURVES.experts_s(at(tokens), 2048, 768, 128, 8, "bf16")[0] for tokens in (1, 4096))
    assert 5 < all_ / one < 100
