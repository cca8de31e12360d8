"""How long a GPU's kernels take: peak rates times the shares of them that were measured, by size.

The shares are in `presets/curves.json`, made by tools/make_engine_curves.py, which names their source. Between the
sizes that were measured they are interpolated, linearly over the logarithm of the sizes; beyond them the last one
holds. A GPU that wasn't measured takes the shares of one that was.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np

from tailgate.workloads.common.arrays import Floats

BYTES: Final = {
    "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "int8": 1.0, "fp4": 0.5625, "int4": 0.516, "mxfp4": 0.531,
}  # fmt: skip
# Of a dtype that wasn't measured, the one whose kernels are most like it.
_LIKE: Final = {
    "fp16": ("bf16",), "int8": ("fp8", "bf16"), "fp8": ("bf16",), "fp8_block": ("fp8", "bf16"),
    "int4": ("bf16",), "mxfp4": ("int4", "bf16"), "fp4": ("bf16",),
}  # fmt: skip


@dataclass(frozen=True)
class Peak:
    """A GPU's rates by its datasheet: bytes/s, and dense FLOP/s by dtype."""

    bandwidth: float
    flops: dict[str, float]


@dataclass(frozen=True)
class Curves:
    """The attained shares of one GPU, over its own peak rates. Times are in s; `rows` and the like are arrays."""

    peak: Peak
    table: dict[str, Any]
    grids: dict[str, Floats]

    def gemm_s(self, rows: Floats, inputs: int, outputs: int, dtype: str) -> Floats:
        """A product of `rows` x inputs activations with a matrix of weights."""
        weights = float(inputs) * outputs
        computed = 2 * rows * weights / self.peak.flops[_computed_as(dtype)]
        read = (weights * BYTES[dtype] + 2 * rows * (inputs + outputs)) / self.peak.bandwidth
        shares = _of(self.table["gemm"], dtype)
        size = np.full_like(rows, np.log2(weights))
        share = _bilinear(shares, np.log2(self.grids["rows"]), np.log2(rows), self.grids["weights_log2"], size)
        return np.asarray(np.maximum(computed, read) / share)

    def decode_attention_s(
        self, sequences: Floats, length: Floats, kv_heads: float, head_dim: int, dtype: str
    ) -> Floats:
        """Attention of one new token in each of `sequences`, whose mean `length` of context is read."""
        read = sequences * length * 2 * kv_heads * head_dim * BYTES[dtype]
        shares = _of(self.table["decode"], dtype)
        heads = np.log2(sequences * kv_heads * head_dim / 128)
        share = _bilinear(shares, self.grids["heads_log2"], heads, self.grids["context_log2"], np.log2(length))
        # Below the grid the time no longer falls with the length: launch and setting up remain.
        short = np.minimum(1.0, length / 2 ** self.grids["context_log2"][0])
        return np.asarray(read / self.peak.bandwidth / (share * short))

    def prefill_attention_s_per_pair(self, prompt: Floats, heads: float, head_dim: int) -> Floats:
        """Attention of prompts that long, per pair of query and key."""
        shares = np.asarray(self.table["prefill"]) / 1e3
        at_heads = np.full_like(prompt, np.log2(heads))
        share = _bilinear(shares, np.log2(self.grids["prompt"]), np.log2(prompt), self.grids["heads_log2"], at_heads)
        return 4 * heads * head_dim / self.peak.flops["bf16"] / share

    def all_reduce_s(self, message_bytes: Floats, gpus: int) -> Floats:
        """One all-reduce over `gpus`, a power of two of at least 2."""
        tables = self.table["all_reduce"]
        log_s = np.log(np.asarray(tables[str(min(gpus, max(map(int, tables))))]) * 1e-7)
        return np.exp(np.interp(np.log2(message_bytes), self.grids["message_log2"], log_s))

    def experts_s(
        self, tokens: Floats, hidden: int, inner: float, experts: int, chosen: int, dtype: str, *, held: float = 1.0
    ) -> Floats:
        """The feed-forward of a mixture: a token goes to `chosen` experts, of which this GPU holds the share `held`."""
        weights = 3.0 * hidden * inner
        touched = experts * (1 - (1 - chosen / experts) ** tokens) * held
        read = touched * weights * BYTES[dtype] / self.peak.bandwidth
        computed = 2 * weights * tokens * chosen * held / self.peak.flops[_computed_as(dtype)]
        roofline = np.maximum(read, computed)
        shares = _of(self.table["moe"], dtype)
        per_expert = np.log2(tokens * chosen / experts)
        grids = self.grids["per_expert_log2"], self.grids["roofline_log2"]
        return roofline / _bilinear(shares, grids[0], per_expert, grids[1], np.log2(roofline))


def curves(gpu: str, peak: Peak) -> Curves:
    """The curves of a GPU by its name in the table (`curves.json`), over the peak rates of this or a like GPU."""
    table = _table()
    grids = {key: np.asarray(value, np.float64) for key, value in table.items() if isinstance(value, list)}
    return Curves(peak, table["gpus"][gpu], grids)


def measured_gpus() -> Sequence[str]:
    return tuple(_table()["gpus"])


@cache
def _table() -> dict[str, Any]:
    text = resources.files("tailgate.harness.engine").joinpath("presets", "curves.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def _computed_as(dtype: str) -> str:
    return {"fp16": "bf16", "fp8_block": "fp8", "int4": "bf16", "mxfp4": "bf16"}.get(dtype, dtype)


def _of(tables: dict[str, Any], dtype: str) -> Floats:
    for name in (dtype, *_LIKE.get(dtype, ())):
        if name in tables:
            return np.asarray(tables[name], np.float64) / 1e3
    return np.asarray(next(iter(tables.values())), np.float64) / 1e3


def _bilinear(values: Floats, rows: Floats, row: Floats, columns: Floats, column: Floats) -> Floats:
    """`values` at (row, column), both clipped to the grid."""
    at_row = np.interp(row, rows, np.arange(len(rows)))
    at_column = np.interp(column, columns, np.arange(len(columns)))
    low_row, low_column = (
        np.minimum(at.astype(int), n - 2) for at, n in ((at_row, len(rows)), (at_column, len(columns)))
    )
    down, right = at_row - low_row, at_column - low_column
    upper = values[low_row, low_column] * (1 - right) + values[low_row, low_column + 1] * right
    lower = values[low_row + 1, low_column] * (1 - right) + values[low_row + 1, low_column + 1] * right
    return np.asarray(upper * (1 - down) + lower * down)
