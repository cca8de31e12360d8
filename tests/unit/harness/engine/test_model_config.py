"""A local config.json gives the shape that the preset has; what isn't known is said."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tailgate.harness.engine.config import Settings, resolve
from tailgate.harness.engine.model_config import read_shape
from tailgate.harness.engine.preset import presets
from tailgate.workloads.common.errors import UserError

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "vocab_size": 128256,
    "rope_scaling": {"factor": 8.0, "rope_type": "llama3"}, "tie_word_embeddings": False,
}  # fmt: skip
MIXTURE = {
    "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144,
    "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
    "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 40960, "vocab_size": 151936,
    "sliding_window": None, "use_sliding_window": False, "tie_word_embeddings": False,
}  # fmt: skip
LATENT = {
    "architectures": ["DeepseekV3ForCausalLM"], "first_k_dense_replace": 3, "hidden_size": 7168, "vocab_size": 129280,
    "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840, "moe_intermediate_size": 2048,
    "n_routed_experts": 256, "n_shared_experts": 1, "num_attention_heads": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 61, "num_key_value_heads": 128, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "quantization_config": {"quant_method": "fp8"},
}  # fmt: skip
SLIDING = {
    "architectures": ["GptOssForCausalLM"], "head_dim": 64, "hidden_size": 2880, "intermediate_size": 2880,
    "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8, "num_local_experts": 128,
    "num_experts_per_tok": 4, "max_position_embeddings": 131072, "vocab_size": 201088, "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 18, "quantization_config": {"quant_method": "mxfp4"},
}  # fmt: skip
NOT_OF_THE_SHAPE = ("source", "name", "other_checkpoints")


def written(folder: Path, config: dict[str, Any]) -> Path:
    model = folder / "my-model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(config))
    return model


@pytest.mark.parametrize(
    ("config", "preset"),
    [(LLAMA, "llama-3.1-8b"), (MIXTURE, "qwen3-30b-a3b"), (LATENT, "deepseek-v3"), (SLIDING, "gpt-oss-120b")],
)
def test_a_config_of_a_known_model_gives_its_preset(tmp_path: Path, config: dict[str, Any], preset: str) -> None:
    read = asdict(read_shape(written(tmp_path, config)))
    known = asdict(presets()[1][preset])
    assert {key: read[key] for key in read if key not in NOT_OF_THE_SHAPE} == {
        key: known[key] for key in known if key not in NOT_OF_THE_SHAPE
    }


def test_a_preset_may_name_a_folder_or_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path, LLAMA)
    monkeypatch.chdir(tmp_path)
    for place in ("./my-model", "my-model", "./my-model/config.json", str(folder)):
        resolved = resolve(Settings(f"h100-sxm/{place}"))
        assert resolved.model_name == "my-model"
        assert resolved.num_gpu_blocks == resolve(Settings("h100-sxm/llama-3.1-8b")).num_gpu_blocks


def test_a_model_that_sees_is_measured_by_its_text_part(tmp_path: Path) -> None:
    text = {
        "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62, "num_attention_heads": 32,
        "num_key_value_heads": 16, "head_dim": 128, "max_position_embeddings": 131072, "sliding_window": 1024,
        "sliding_window_pattern": 6, "vocab_size": 262208, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    }  # fmt: skip
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "vision_config": vision}
    shape = read_shape(written(tmp_path, config))
    known = presets()[1]["gemma-3-27b"]
    assert shape.vision_parameters == pytest.approx(known.vision_parameters, rel=0.03)
    assert (shape.sliding_layers, shape.rope_positions, shape.tied_embeddings) == (52, known.rope_positions, True)
    assert shape.unverified


@pytest.mark.parametrize(
    ("quantization", "stored"),
    [
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "fp8",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8, "type": "int"}}}},
            "int8",
        ),
    ],
)
def test_a_quantized_checkpoint_is_known_by_its_config(tmp_path: Path, quantization: Any, stored: str) -> None:
    assert read_shape(written(tmp_path, LLAMA | {"quantization_config": quantization})).checkpoint == stored


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            LLAMA | {"architectures": ["LlamaForCausalLLM"]},
            r"doesn't know .* The nearest is LlamaForCausalLM\. It knows",
        ),
        (LLAMA | {"architectures": ["MambaModel"]}, "It knows LlamaForCausalLM, Mistral"),
        (LLAMA | {"architectures": None}, "architectures: it is missing"),
        (LLAMA | {"hidden_size": None}, "hidden_size: it is missing"),
        (LLAMA | {"hidden_size": "4096"}, "hidden_size: '4096' is no whole number"),
        (LLAMA | {"num_hidden_layers": 0}, "num_hidden_layers: 0 is no whole number of at least 1"),
        (LLAMA | {"quantization_config": {"quant_method": "new"}}, "quantized by 'new'"),
        (
            LLAMA | {"quantization_config": {"quant_method": "compressed-tensors", "bits": 3}},
            "quantized by 'compressed",
        ),
    ],
)
def test_what_a_config_lacks_is_said(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_shape(written(tmp_path, config))


def test_what_is_no_config_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        resolve(Settings(f"h100-sxm/{tmp_path}/nothing"))
    for text in ("[]", "{", '"a"'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config\.json"):
            read_shape(tmp_path)
