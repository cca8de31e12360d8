"""`GPU/MODEL`: which accelerator and which model a preset names. MODEL may be a local config.json or its folder."""

import difflib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tailgate.harness.engine.model.model_shape import ModelShape
from tailgate.harness.engine.model.step_time import Accelerator
from tailgate.harness.engine.model_config import read_shape
from tailgate.workloads.common.errors import UserError


def presets() -> tuple[dict[str, Accelerator], dict[str, ModelShape]]:
    """All accelerators and all models by their names in a preset."""
    return dict(_gpus()), dict(_models())


def find_preset(preset: str) -> tuple[Accelerator, ModelShape]:
    """What `preset` names. A model is named by its preset, its name on Hugging Face, or a path; UserError otherwise."""
    gpus, models = _gpus(), _models()
    gpu, _, model = preset.partition("/")
    if gpu not in gpus:
        raise UserError(
            f"no preset {preset!r}: there is no GPU {gpu!r}",
            where="--preset",
            remedy=f"It is GPU/MODEL. {_nearest(gpu, gpus)}",
        )
    by_name = {shape.name.lower(): shape for shape in models.values()} | models
    if shape := by_name.get(model.lower()):
        return gpus[gpu], shape
    if model.startswith((".", "/", "~")) or model.endswith(".json") or Path(model, "config.json").is_file():
        return gpus[gpu], read_shape(Path(model).expanduser())
    raise UserError(
        f"no preset {preset!r}: there is no model {model!r}",
        where="--preset",
        remedy="It is GPU/MODEL, or GPU and the path of a config.json, e.g. h100-sxm/./my-model. "
        + _nearest(model, models),
    )


def _nearest(word: str, known: Iterable[str]) -> str:
    word = word.lower()
    begun = [name for name in known if word and name.startswith(word)]
    near = [*begun, *difflib.get_close_matches(word, known, 3, 0.5 if not begun else 0.9)][:3]
    return f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}"


def power_limits() -> dict[str, float]:
    """What a GPU may draw, W, by its name in a preset."""
    limits: dict[str, float] = _read("power.yaml")
    return limits


@cache
def _gpus() -> dict[str, Accelerator]:
    return {name: Accelerator(**_numbers(entry)) for name, entry in _read("gpus.yaml").items()}


@cache
def _models() -> dict[str, ModelShape]:
    return {
        name: ModelShape(**{**entry, "other_checkpoints": tuple(entry.get("other_checkpoints", ()))})
        for name, entry in _read("models.yaml").items()
    }


def _read(name: str) -> dict[str, Any]:
    text = resources.files("tailgate.harness.engine").joinpath("presets", name).read_text(encoding="utf-8")
    read: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return read


def _numbers(entry: dict[str, Any]) -> dict[str, Any]:
    """YAML 1.1 reads `3.35e12` as text: an exponent needs its sign there."""
    return {k: float(v) if k.endswith(("_gib", "_s", "_flops")) and v is not None else v for k, v in entry.items()}
