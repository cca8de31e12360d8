"""The embedded engine as a run starts it."""

import asyncio
import json
from pathlib import Path

import pytest

from tailgate.harness.targets.base import Life, TargetGone
from tailgate.harness.targets.sim import SimTarget


def started(preset: str, **args: object) -> Life:
    async def scenario() -> Life:
        target = SimTarget(preset, args, 0)
        try:
            await target.start()
            return target.life
        finally:
            await target.stop()

    return asyncio.run(scenario())


def test_a_model_whose_memory_is_not_verified_is_said_in_the_run() -> None:
    (notice,) = started("h100-sxm/gemma-3-4b", max_model_len=4096).notices
    assert "google/gemma-3-4b-it is not verified: its vision encoder" in notice
    assert started("h100-sxm/qwen2.5-0.5b").notices == []


def test_a_model_that_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(TargetGone, match=r"GiB are missing .* Any of these would do: --tensor-parallel-size 4"):
        started("h100-sxm/llama-3.1-70b")


def test_a_local_config_is_served_under_its_folders_name(tmp_path: Path) -> None:
    config = {
        "architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
        "vocab_size": 151936, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert started(f"l4/{tmp_path}", max_model_len="auto").phases["server start"] > 0
