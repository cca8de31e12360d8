"""What the simulated GPUs draw: within the board's limit, a tenth of it when idle, most of it in the prompt phase."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.harness.engine.config import Settings, resolve
from tailgate.harness.engine.model.power import PowerMeter
from tailgate.harness.engine.model.step_law import StepShape
from tailgate.harness.engine.preset import presets

STEP_TIME = resolve(Settings("h100-sxm/llama-3.1-8b")).step_time


def mean_w(shape: StepShape) -> float:
    meter = PowerMeter(STEP_TIME, 700.0)
    seconds = STEP_TIME.seconds(shape)
    meter.stepped(shape, seconds)
    return meter.energy_j(seconds) / seconds


def test_every_gpu_has_a_limit():
    for gpu in presets()[0]:
        assert resolve(Settings(f"{gpu}/qwen2.5-0.5b")).power_limit_w


def test_an_idle_gpu_draws_a_tenth_of_its_limit():
    assert PowerMeter(STEP_TIME, 700.0).energy_j(10.0) == pytest.approx(700.0)


def test_prompts_draw_nearly_the_limit_and_decoding_about_half_of_it():
    assert mean_w(StepShape(prefill_tokens=8192, attention_pairs=8192 * 4096, kv_tokens=8192)) > 0.9 * 700
    assert 137 < mean_w(StepShape(decode_sequences=8, sampled=8, attention_pairs=8000, kv_tokens=8000)) < 350


@given(st.integers(0, 16_384), st.integers(0, 1024), st.integers(0, 500_000))
def test_the_limit_is_never_passed(prefill: int, decodes: int, cached: int):
    shape = StepShape(prefill, decodes, decodes, attention_pairs=prefill * prefill // 2 + cached, kv_tokens=cached)
    assert 70.0 <= mean_w(shape) <= 700.0 * (1 + 1e-12)
