"""Makes harness/engine/presets/curves.json: how much of a GPU's peak its kernels attain, by size.

The measurements are the parquet tables inside the wheel `aiconfigurator-core` 0.12.0 (NVIDIA, Apache-2.0; vLLM's own
kernels on real GPUs). Only ratios are kept: the time that the peak rates of the datasheet would allow, over the time
that was measured, as the median of all shapes of about one size. All-reduces are kept as times.

    pip download --no-deps aiconfigurator-core==0.12.0 && python tools/make_engine_curves.py WHEEL

Figures that exceed 1 come from weights or caches that stayed in the L2 cache between the repetitions of a benchmark,
which those of a whole model don't do: a table's entries are capped by those of its largest sizes.
"""

import argparse
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import yaml

TARGET: Final = Path(__file__).parents[1] / "harness" / "engine" / "presets" / "curves.json"
SOURCE: Final = "kernel tables of aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0), measured with vLLM's kernels"
# Our name of a GPU: its folder in the wheel. Its peak rates are those of presets/gpus.yaml.
GPUS: Final = {
    "a100-sxm": "a100_sxm", "h100-sxm": "h100_sxm", "h200-sxm": "h200_sxm", "b200": "b200_sxm", "l40s": "l40s",
    "rtx-pro-6000": "rtx_pro_6000_server",
}  # fmt: skip
DTYPES: Final = {"bf16": "bfloat16", "fp8": "fp8", "fp8_block": "fp8_block", "fp4": "nvfp4"}
# Experts in fp8 are published in blocks, and vLLM takes what is faster.
MOE_DTYPES: Final = {
    "bf16": ("bfloat16",), "fp8": ("fp8", "fp8_block"), "fp4": ("nvfp4",), "int4": ("int4_wo",),
    "mxfp4": ("w4a16_mxfp4",),
}  # fmt: skip
BYTES: Final = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "fp4": 0.5625, "int4": 0.516, "mxfp4": 0.531}
# Which peak a dtype computes at; int4 and mxfp4 weights are multiplied as bf16.
PEAK: Final = {"bf16": "bf16", "fp8": "fp8", "fp8_block": "fp8", "fp4": "fp4", "int4": "bf16", "mxfp4": "bf16"}

ROWS: Final = (1, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
WEIGHTS_LOG2: Final = tuple(range(20, 30))  # elements of the matrix of weights
HEADS_LOG2: Final = tuple(range(15))  # decoding: sequences x KV heads; prompts: sequences x heads
CONTEXT_LOG2: Final = tuple(range(4, 18))
PROMPT: Final = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
MESSAGE_LOG2: Final = tuple(range(9, 30, 2))  # bytes
PER_EXPERT_LOG2: Final = tuple(range(-4, 13))  # tokens of a step for one expert, on average
ROOFLINE_LOG2: Final = tuple(range(-21, -4))  # seconds that the peak rates would allow

_READ_S: Final = 2**28  # bytes from which nothing of it stays in a cache


def main() -> None:
    """Read the wheel, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=TARGET)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(arguments.wheel) as wheel:
            wheel.extractall(folder, [name for name in wheel.namelist() if name.endswith("_perf.parquet")])
        data = Path(folder) / "aiconfigurator_core" / "systems" / "data"
        curves = {
            "source": SOURCE,
            "unit": "thousandths of the peak; all_reduce: tenths of a microsecond",
            "rows": ROWS, "weights_log2": WEIGHTS_LOG2, "heads_log2": HEADS_LOG2, "context_log2": CONTEXT_LOG2,
            "prompt": PROMPT, "message_log2": MESSAGE_LOG2, "per_expert_log2": PER_EXPERT_LOG2,
            "roofline_log2": ROOFLINE_LOG2,
            "gpus": {name: curves_of(data, folder, *rates(name)) for name, folder in GPUS.items()},
        }  # fmt: skip
    text = json.dumps(curves, separators=(",", ":"))
    arguments.out.write_text(text.replace('},"', '},\n"').replace('"gpus":', '\n"gpus":') + "\n", encoding="utf-8")
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1024:.0f} kB")


def rates(gpu: str) -> tuple[float, dict[str, float]]:
    """Bandwidth in bytes/s, and dense FLOP/s by dtype, of the types that it can multiply."""
    entry = yaml.safe_load((TARGET.parent / "gpus.yaml").read_text(encoding="utf-8"))[gpu]
    flops = {dtype: entry[f"{dtype}_flops"] for dtype in ("bf16", "fp8", "fp4")}
    return float(entry["bandwidth_bytes_per_s"]), {dtype: float(rate) for dtype, rate in flops.items() if rate}


def curves_of(data: Path, folder: str, bandwidth: float, flops: dict[str, float]) -> dict[str, Any]:
    """All tables of one GPU."""
    versions: dict[str, str] = {}

    def table(kind: str, name: str, library: str = "vllm") -> pd.DataFrame:
        found = sorted((data / folder / kind / library).glob(f"*/{name}_perf.parquet"), key=_version)
        versions[kind if library == "vllm" else library] = found[-1].parent.name
        return pd.read_parquet(found[-1])

    made = {
        "gemm": _gemm(table("gemm", "gemm"), bandwidth, flops),
        "decode": _decode(table("attention", "generation_attention"), bandwidth),
        "prefill": _prefill(table("attention", "context_attention"), flops["bf16"]),
        "all_reduce": _all_reduce(table("comm", "custom_allreduce"), table("comm", "nccl", "nccl")),
        "moe": _moe(table("moe", "moe"), bandwidth, flops),
    }
    return {"versions": versions, **made}


def _version(path: Path) -> list[int]:
    return [int(part) for part in path.parent.name.split(".") if part.isdigit()]


def _gemm(measured: pd.DataFrame, bandwidth: float, flops: dict[str, float]) -> dict[str, list[list[int]]]:
    """Products of rows x k activations with n x k weights: by rows and elements of weights."""
    tables = {}
    for dtype, theirs in DTYPES.items():
        rows = measured[(measured.gemm_dtype == theirs) & (measured.n >= 512) & (measured.k >= 512)]
        if rows.empty or PEAK[dtype] not in flops:
            continue
        best = rows.groupby(["m", "n", "k"], as_index=False).latency.min()  # of several kernels vLLM takes the fastest
        weights = best.n * best.k
        computed = 2 * best.m * weights / flops[PEAK[dtype]]
        read = (weights * BYTES[dtype] + 2 * (best.m * best.k + best.m * best.n)) / bandwidth
        share = np.maximum(computed, read) / (best.latency / 1e3)
        grid = _grid(share, best.m, ROWS, np.log2(weights).round(), WEIGHTS_LOG2)
        tables[dtype] = _thousandths(_capped(grid, 25 - WEIGHTS_LOG2[0]))
    return tables


def _decode(measured: pd.DataFrame, bandwidth: float) -> dict[str, list[list[int]]]:
    """Attention of one token a sequence: reads its cache. By sequences x KV heads, and length."""
    rows = measured[measured.head_dim == 128]
    if "window_size" in rows:
        rows = rows[rows.window_size == 0]
    kv_heads = rows.num_key_value_heads.where(rows.num_key_value_heads > 0, rows.num_heads)
    rows = rows.assign(kv_heads=kv_heads, length=rows.isl + rows.step)
    tables = {}
    for dtype, theirs in (("bf16", "bfloat16"), ("fp8", "fp8")):
        of = rows[rows.kv_cache_dtype == theirs]
        if of.empty:
            continue
        keys = ["batch_size", "length", "num_heads", "kv_heads"]
        best = of.groupby(keys, as_index=False).latency.min()
        read = best.batch_size * best.length * 2 * best.kv_heads * 128 * BYTES[dtype]
        share = read / bandwidth / (best.latency / 1e3)
        most = float(share[read >= _READ_S].quantile(0.95))
        heads = np.log2(best.batch_size * best.kv_heads).round()
        grid = _grid(share, heads, HEADS_LOG2, np.log2(best.length).round(), CONTEXT_LOG2)
        tables[dtype] = _thousandths(np.minimum(grid, most))
    return tables


def _prefill(measured: pd.DataFrame, flops: float) -> list[list[int]]:
    """Attention of whole prompts: by length, and sequences x heads."""
    rows = measured[(measured.head_dim == 128) & (measured.kv_cache_dtype == "bfloat16")]
    if "window_size" in rows:
        rows = rows[rows.window_size == 0]
    keys = ["batch_size", "isl", "num_heads"]
    typical = rows.groupby(keys, as_index=False).latency.median()
    pairs = typical.batch_size * typical.isl * (typical.isl + 1) / 2
    share = 4 * pairs * typical.num_heads * 128 / flops / (typical.latency / 1e3)
    heads = np.log2(typical.batch_size * typical.num_heads).round()
    return _thousandths(_grid(share, typical.isl, PROMPT, heads, HEADS_LOG2))


def _all_reduce(custom: pd.DataFrame, nccl: pd.DataFrame) -> dict[str, list[int]]:
    """Time by message and number of GPUs, inside a CUDA graph: of vLLM's own kernel and NCCL's the faster.

    The tables count a message's elements, of 2 bytes.
    """
    if "backend" in custom:
        custom = custom[custom.backend.str.contains("graph")]
    nccl = nccl[(nccl.op_name == "all_reduce") & (nccl.nccl_dtype == "half")]
    tables = {}
    for gpus in sorted(custom.num_gpus.unique()):
        times = []
        for measured in (custom, nccl):
            by_size = measured[measured.num_gpus == gpus].groupby("message_size").latency.median()
            at = np.interp(MESSAGE_LOG2, np.log2(2 * by_size.index), np.log(by_size.to_numpy()))
            times.append(np.exp(at))
        tables[str(gpus)] = [round(1e4 * time) for time in np.minimum(*times)]
    return tables


def _moe(measured: pd.DataFrame, bandwidth: float, flops: dict[str, float]) -> dict[str, list[list[int]]]:
    """A layer's experts: by tokens for one expert and by what the peak rates would allow."""
    tables = {}
    keys = ["num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size"]
    for dtype, theirs in MOE_DTYPES.items():
        rows = measured[measured.moe_dtype.isin(theirs) & (measured.moe_ep_size == 1)]
        if dtype == "mxfp4":  # that of gpt-oss; the other kernels of this dtype serve no model that is published so
            rows = rows[rows.kernel_source.str.contains("gptoss")]
        if rows.empty or PEAK[dtype] not in flops:
            continue
        # Of several kernels the fastest, of several ways in which tokens choose their experts the median.
        kernels = rows.groupby([*keys, "distribution"], as_index=False).latency.min()
        typical = kernels.groupby(keys, as_index=False).latency.median()
        share_chosen = typical.topk / typical.num_experts
        touched = typical.num_experts * (1 - (1 - share_chosen) ** typical.num_tokens)
        weights = 3 * typical.hidden_size * typical.inter_size / typical.moe_tp_size
        read = touched * weights * BYTES[dtype] / bandwidth
        computed = 2 * weights * typical.num_tokens * typical.topk / flops[PEAK[dtype]]
        roofline = np.maximum(read, computed)
        share = roofline / (typical.latency / 1e3)
        per_expert = np.log2(typical.num_tokens * share_chosen).round()
        grid = _grid(share, per_expert, PER_EXPERT_LOG2, np.log2(roofline).round(), ROOFLINE_LOG2)
        tables[dtype] = _thousandths(np.minimum(grid, 0.95))
    return tables


def _grid(share: Any, rows: Any, row_grid: tuple[int, ...], columns: Any, column_grid: tuple[int, ...]) -> Any:
    """Medians of `share` on a grid, by nearest row; cells without a measurement take the nearest one's of their row."""
    nearest = np.abs(np.asarray(rows, float)[:, None] - np.asarray(row_grid, float)[None, :])
    row = np.asarray(row_grid)[nearest.argmin(axis=1)]
    close = nearest.min(axis=1) <= 0.02 * np.abs(row) + 0.5
    found = pd.DataFrame({"row": row, "column": np.asarray(columns), "share": np.asarray(share)})[close]
    table = found.groupby(["row", "column"]).share.median().unstack()
    table = table.reindex(index=list(row_grid), columns=list(column_grid))
    return table.ffill(axis=1).bfill(axis=1).ffill().bfill().to_numpy()


def _capped(grid: Any, first_large: int) -> Any:
    """No entry above the largest of its row's large sizes."""
    return np.minimum(grid, grid[:, first_large:].max(axis=1, keepdims=True))


def _thousandths(grid: Any) -> list[list[int]]:
    return [[max(1, round(1e3 * value)) for value in row] for row in grid]


if __name__ == "__main__":
    main()
