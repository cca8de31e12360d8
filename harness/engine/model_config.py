"""A model's shape from its config.json, as Hugging Face's transformers write it."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tailgate.harness.engine.model.model_shape import ModelShape, WeightDtype
from tailgate.workloads.common.errors import UserError

# What each architecture is to the memory rules: its family.
ARCHITECTURES: Final = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Mistral3ForConditionalGeneration": "mistral",
    "MixtralForCausalLM": "mixtral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen2MoeForCausalLM": "qwen2-moe",
    "Qwen2VLForConditionalGeneration": "qwen2-vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen2-vl",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3-moe",
    "Qwen3VLMoeForConditionalGeneration": "qwen3-moe",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "Gemma3ForConditionalGeneration": "gemma3",
    "GraniteForCausalLM": "granite",
    "GraniteMoeForCausalLM": "granite-moe",
    "Phi3ForCausalLM": "phi",
    "DeepseekV2ForCausalLM": "deepseek-mla",
    "DeepseekV3ForCausalLM": "deepseek-mla",
    "GptOssForCausalLM": "gpt-oss",
    "MiniMaxM2ForCausalLM": "minimax",
}
_EXPERTS: Final = ("n_routed_experts", "num_local_experts", "num_experts")
_EXPERTS_ONLY: Final = {"mixtral", "granite-moe", "gpt-oss", "minimax"}  # `intermediate_size` is an expert's
_PER_TOKEN: Final = ("num_experts_per_tok", "experts_per_token")
_GEMMA3_SLIDING: Final = 6  # of so many layers, one has full attention
_MOST_BYTES: Final = 4 * 2**20


def read_shape(path: Path) -> ModelShape:
    """The shape in a config.json, or in the folder that holds one. UserError says what can't be read or isn't known."""
    file = path / "config.json" if path.is_dir() else path
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UserError("it is too large to be a model's config.json", where=str(file))
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"no config.json of a model can be read: {reason}", where=str(file)) from None
    if not isinstance(data, dict):
        raise UserError("it is not the config.json of a model", where=str(file))
    family = _family(data, file)
    config = _Reader({**data, **data["text_config"]} if isinstance(data.get("text_config"), dict) else data, file)
    heads = config.count("num_attention_heads")
    hidden = config.count("hidden_size")
    layers = config.count("num_hidden_layers")
    context = config.count("max_position_embeddings")
    mla = config.count("kv_lora_rank", absent=0)
    experts = config.count(*_EXPERTS, absent=0)
    width = config.count("intermediate_size", absent=None if not experts else 0)
    shared = config.count("shared_expert_intermediate_size", absent=0)
    expert_width = 0
    if experts:
        only = family in _EXPERTS_ONLY
        expert_width = width if only else config.count("moe_intermediate_size")
        shared = shared or config.count("n_shared_experts", absent=0) * expert_width
        width = width if family == "deepseek-mla" else 0
    sliding, window = _sliding(config, family, layers)
    vision = data.get("vision_config")
    scaling = config.get("rope_scaling")
    factor = scaling.get("factor") if isinstance(scaling, dict) and family == "gemma3" else None
    return ModelShape(
        source=str(file),
        name=file.resolve().parent.name if file.name == "config.json" else file.stem,
        family=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=0 if mla else config.count("num_key_value_heads", absent=heads),
        head_dim=0 if mla else config.count("head_dim", absent=hidden // heads),
        feed_forward=width,
        vocabulary=config.count("vocab_size"),
        tied_embeddings=bool(config.get("tie_word_embeddings", family.startswith("gemma"))),
        context=context,
        experts=experts,
        experts_per_token=config.count(*_PER_TOKEN) if experts else 0,
        expert_feed_forward=expert_width,
        shared_feed_forward=shared,
        dense_layers=config.count("first_k_dense_replace", absent=0) if experts else 0,
        mla_q_rank=config.count("q_lora_rank", absent=0) if mla else 0,
        mla_kv_rank=mla,
        mla_rope=config.count("qk_rope_head_dim") if mla else 0,
        mla_nope=config.count("qk_nope_head_dim") if mla else 0,
        mla_v=config.count("v_head_dim") if mla else 0,
        sliding_layers=sliding,
        window=window,
        vision_parameters=_vision(_Reader(vision, file)) if isinstance(vision, dict) else 0,
        rope_positions=int(context * (1 + factor)) if isinstance(factor, (int, float)) else None,
        checkpoint=_checkpoint(data.get("quantization_config"), file),
    )


class _Reader:
    """A config's values, with errors that name the key."""

    def __init__(self, data: Mapping[str, Any], file: Path) -> None:
        self._data, self._file = data, file

    def get(self, key: str, default: object = None) -> Any:
        value = self._data.get(key)
        return default if value is None else value

    def count(self, *keys: str, absent: int | None = None) -> int:
        """The first of `keys` that is there: a whole number from 0 (or from 1 where it has to be there)."""
        key = next((key for key in keys if self._data.get(key) is not None), None)
        if key is None:
            if absent is None:
                raise UserError("it is missing", where=f"{self._file}: {' or '.join(keys)}")
            return absent
        value = self._data[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < (absent is None):
            raise UserError(
                f"{value!r} is no whole number of at least {int(absent is None)}", where=f"{self._file}: {key}"
            )
        return value


def _family(data: Mapping[str, Any], file: Path) -> str:
    given = data.get("architectures")
    name = given[0] if isinstance(given, list) and given else None
    if not isinstance(name, str):
        raise UserError("it is missing, so that the model's architecture isn't known", where=f"{file}: architectures")
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, 1)
        nearest = f"The nearest is {near[0]}. " if near else ""
        raise UserError(
            f"the engine doesn't know the architecture {name}",
            where=f"{file}: architectures",
            remedy=f"{nearest}It knows {', '.join(ARCHITECTURES)}",
        )
    return ARCHITECTURES[name]


def _sliding(config: _Reader, family: str, layers: int) -> tuple[int, int]:
    """How many layers attend to a window, and how wide it is."""
    window = config.count("sliding_window", absent=0)
    if not window or config.get("use_sliding_window") is False:
        return 0, 0
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return kinds.count("sliding_attention"), window
    match family:
        case "gemma3":
            return layers - layers // config.count("sliding_window_pattern", absent=_GEMMA3_SLIDING), window
        case "gemma2" | "gpt-oss":
            return layers - layers // 2, window
    return layers, window


def _vision(config: _Reader) -> int:
    """Weights of a vision encoder, by the widths of its layers."""
    hidden, layers = config.count("hidden_size", absent=0), 0
    for key in ("num_hidden_layers", "depth"):
        layers = layers or config.count(key, absent=0)
    return layers * hidden * (4 * hidden + 2 * config.count("intermediate_size", absent=4 * hidden))


def _checkpoint(quantized: Any, file: Path) -> WeightDtype:
    """How the weights are stored."""
    if not isinstance(quantized, dict):
        return "bf16"
    method = quantized.get("quant_method")
    weights: Any = quantized
    for key in ("config_groups", 0, "weights"):  # compressed-tensors has groups of layers; the first stands for all
        inner = next(iter(weights.values()), None) if key == 0 else weights.get(key)
        if not isinstance(inner, dict):
            break
        weights = inner
    bits, kind = weights.get("num_bits", weights.get("bits", 4)), weights.get("type", "int")
    match method:
        case "fp8" | "mxfp4":
            return "fp8" if method == "fp8" else "mxfp4"
        case "awq" | "gptq" | "auto-round":
            return "int8" if bits == 8 else "int4"
        case "compressed-tensors" if bits in (4, 8):
            if kind == "float":
                return "fp8" if bits == 8 else "fp4"
            return "int8" if bits == 8 else "int4"
        case "modelopt":
            return "fp4" if "4" in str(quantized.get("quant_algo")) else "fp8"
    raise UserError(
        f"the engine doesn't know weights quantized by {method!r}",
        where=f"{file}: quantization_config.quant_method",
        remedy="It knows fp8, mxfp4, awq, gptq, auto-round, modelopt, and compressed-tensors with 4 or 8 bits",
    )
