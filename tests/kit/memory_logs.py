"""Start-up logs of real vLLM servers, as `../shared/engine/vram.csv` has them, and what the memory model says of each.

`tests/data/vram_excerpt.csv` is a part of it: facts of public logs and reports, each row with its source (`cite`).
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tailgate.harness.engine.model import memory
from tailgate.harness.engine.model.memory import GIB, MemoryBudget, MemoryRules, memory_rules
from tailgate.harness.engine.model.model_shape import ModelShape, WeightDtype
from tailgate.harness.engine.preset import presets
from tests.kit.paths import ROOT

SHARED = ROOT.parent / "shared" / "engine" / "vram.csv"
EXCERPT = ROOT / "tests" / "data" / "vram_excerpt.csv"
_PIPELINE_NON_TORCH_GIB = 0.07  # a GPU of a pipeline; the engine has no pipelines, but logs do
_QUANTIZED: dict[str, WeightDtype] = {
    "": "bf16", "None": "bf16", "fp8": "fp8", "compressed-tensors": "fp8", "mxfp4": "mxfp4", "gptq_marlin": "int4",
    "awq": "int4", "awq_marlin": "int4", "gptq": "int4", "auto_round": "int4", "compressed-tensors int4": "int4",
    "nvfp4": "fp4",
}  # fmt: skip


@dataclass(frozen=True)
class MemoryLog:
    """One server's row. `shape` is None where its model has no preset; `left_out` says why a figure isn't compared."""

    values: dict[str, str]
    shape: ModelShape | None

    @property
    def row(self) -> str:
        return self.values["row"]

    @property
    def name(self) -> str:
        return self.values["shape"]

    @property
    def family(self) -> str:
        return self.values["family"]

    @property
    def is_v1(self) -> bool:
        return "V0" not in self.values["engine"]

    @property
    def left_out(self) -> str:
        if self.shape is None:
            return "no preset of this model"
        if self.values["dtype"] == "float32":
            return "the engine has no float32"
        if self._weights is None:
            return f"unknown quantization {self.values['quant']}"
        return "" if self.values["load_gib"] else "nothing was logged that could be compared"

    def errors(self) -> dict[str, float]:
        """Relative errors of `weights` and of `cache` (tokens from the logged pool), GiB of `pool`; what there is."""
        if self.shape is None or self.values["dtype"] == "float32":
            return {}
        found = {}
        if (loaded := self._number("load_gib")) and self._weights:
            found["weights"] = self._weight_bytes / GIB / loaded - 1
        pool = self._number("avail_min") or self._number("avail_kv_gib")
        tokens = self._number("kv_tokens")
        if pool and tokens and not self.shape.linear_layers and "DCP" not in self.values["model"]:
            per_token = self.shape.kv_bytes_per_token(self._kv_bytes, self._gpus) / self._gpus / self._stages
            found["cache"] = pool * GIB / per_token / tokens - 1
        if pool and self.budget:
            found["pool"] = self.budget.pool / GIB - pool
        return found

    @cached_property
    def budget(self) -> MemoryBudget | None:
        """What the model says that is where on each GPU; None where the log doesn't say with what it was started."""
        seqs, tokens = self._number("mns"), self._number("mnbt")
        granted = self._number("budget_gib") or (self._number("util") or 0) * (self._number("gpu_mem_gib") or 0)
        version = self._minor
        if not (self.is_v1 and self.shape and self._weights and seqs and tokens and granted and version):
            return None
        rules = self._rules(version)
        activation = memory.activation_bytes(
            self.shape, self._weights, rules, seqs=int(seqs), tokens=int(tokens), gpus=self._gpus
        )
        graphs = rules.graphs_reserved and self.values["eager"] != "True"
        return MemoryBudget(
            granted=granted * GIB,
            weights=self._weight_bytes,
            activation=activation,
            non_torch=memory.non_torch_bytes(self.shape, rules, self._gpus),
            graphs=memory.graph_bytes(self._stage, int(seqs)) if graphs else 0.0,
        )

    def _rules(self, minor: int) -> MemoryRules:
        """Those of its version; the log may know better which sampler it had, and whether it was part of a pipeline."""
        rules = memory_rules(minor)
        if self.values["sampler"] in ("triton", "flashinfer", "v2runner"):
            newer = memory_rules(19)
            rules = replace(rules, sampler=newer.sampler, hidden=newer.hidden)
        return replace(rules, non_torch_gib=_PIPELINE_NON_TORCH_GIB) if self._stages > 1 else rules

    @property
    def _weight_bytes(self) -> float:
        assert self._weights is not None
        return memory.weight_bytes(self._stage, self._weights, self._gpus)

    @property
    def _stage(self) -> ModelShape:
        """The part of the model that a GPU of a pipeline has: its layers, and the embeddings or the output head."""
        assert self.shape is not None
        if self._stages == 1:
            return self.shape
        return replace(self.shape, layers=self.shape.layers // self._stages, tied_embeddings=True)

    @property
    def _gpus(self) -> int:
        return int(self.values["tp"])

    @property
    def _stages(self) -> int:
        return int(self.values["pp"])

    @property
    def _kv_bytes(self) -> int:
        return 1 if self.values["kv_dtype"].startswith("fp8") else 2

    @property
    def _weights(self) -> WeightDtype | None:
        return _QUANTIZED.get(self.values["quant"])

    @property
    def _minor(self) -> int | None:
        """The vLLM version: 19 of 0.19.0. What is said to be of 2026-08 is taken as 0.27."""
        text = self.values["vllm"]
        if found := re.search(r"\b0\.(\d+)", text):
            return int(found[1])
        return 27 if "2026-08" in text else None

    def _number(self, key: str) -> float | None:
        return float(self.values[key]) if self.values[key] else None


@dataclass(frozen=True)
class Agreement:
    """Absolute errors of several servers."""

    n: int
    median: float
    p90: float
    worst: float


def read_logs(file: Path) -> list[MemoryLog]:
    shapes = presets()[1]
    with file.open(newline="", encoding="utf-8") as lines:
        return [MemoryLog(row, shapes.get(row["shape"].lower().removesuffix("/r1"))) for row in csv.DictReader(lines)]


def agreement(logs: Iterable[MemoryLog], figure: str) -> Agreement | None:
    """How far the model is off in `figure`; None if no log has it."""
    errors = np.abs([log.errors()[figure] for log in logs if figure in log.errors()])
    if not len(errors):
        return None
    return Agreement(len(errors), float(np.median(errors)), float(np.percentile(errors, 90)), float(errors.max()))
