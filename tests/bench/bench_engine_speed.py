"""The engine's speeds against published measurements of real servers, none of which it was fitted to. Prints tables.

The measurements are ../shared/engine/published.csv: InferenceX and NVIDIA's own runs (source A, closed loop),
inference-perf's on one H100 (B, open loop), inference-bench's on L4 and A100 (D); vLLM's V1 engine, GPUs and models
that have a preset, rows that are not marked as suspect. Each row is simulated on the virtual clock with the same load.

`python tests/bench/bench_engine_speed.py [published.csv]`
"""

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from tailgate.harness.config.run_spec import build
from tailgate.harness.run.virtual.execute import figures
from tailgate.workloads.common.errors import UserError

DATA = Path(__file__).parents[3] / "shared" / "engine" / "published.csv"
GPUS = {
    "h100_sxm": "h100-sxm", "h200_sxm": "h200-sxm", "b200_sxm": "b200", "h100_80gb": "h100-sxm", "l4": "l4",
    "a100_80gb": "a100-sxm", "a100_40gb": "a100-sxm-40", "l40s": "l40s",
}  # fmt: skip
MODELS = {
    "Llama-3.1-70B": "llama-3.1-70b", "Llama-3.3-70B": "llama-3.3-70b", "Llama-3.1-8B": "llama-3.1-8b",
    "Llama-3.1-405B": "llama-3.1-405b", "Qwen3-32B": "qwen3-32b", "Qwen3-8B": "qwen3-8b", "Qwen2.5-7B": "qwen2.5-7b",
    "Qwen3-30B-A3B": "qwen3-30b-a3b", "Qwen3-235B-A22B": "qwen3-235b-a22b", "gpt-oss-120b": "gpt-oss-120b",
    "gpt-oss-20b": "gpt-oss-20b", "DeepSeek-V3": "deepseek-v3", "DeepSeek-R1": "deepseek-v3",
}  # fmt: skip
SATURATED_TTFT_MS = 1000.0  # of an open loop: it has no steady state


@dataclass(frozen=True)
class Row:
    """One published measurement and its simulation."""

    group: str
    load: str
    ttft: tuple[float | None, float | None]  # measured, simulated; ms
    tpot: tuple[float | None, float | None]
    tokens: tuple[float | None, float | None]  # output tokens/s

    def error(self, name: str) -> float | None:
        measured, simulated = getattr(self, name)
        return simulated / measured - 1 if measured and simulated else None

    def cell(self, name: str) -> str:
        """Measured, simulated, and how far they are apart."""
        measured, simulated = getattr(self, name)
        error = self.error(name)
        return "-" if error is None else f"{measured:.4g} / {simulated:.4g} ({100 * error:+.0f} %)"


def number(text: str) -> float | None:
    return float(text) if text else None


def rows(path: Path) -> Iterator[Row]:
    with path.open(newline="") as file:
        for entry in csv.DictReader(file):
            model = next((ours for theirs, ours in MODELS.items() if theirs.lower() in entry["model"].lower()), None)
            gpu = GPUS.get(entry["gpu"].split()[0])
            ours = (
                entry["source"] in "ABD" and model and gpu and "vllm" in entry["engine"] and "V0" not in entry["engine"]
            )
            saturated = entry["concurrency_or_rate"].startswith("r=") and (
                (number(entry["ttft_ms_p50"]) or 0.0) > SATURATED_TTFT_MS
            )
            if ours and not saturated and "SUSPECT" not in entry["notes"]:
                try:
                    yield simulated(entry, f"{gpu}/{model}")
                except UserError as error:
                    print(f"left out: {entry['gpu']} {entry['model']} {entry['dtype']}: {error.what}", file=sys.stderr)


def simulated(entry: dict[str, str], preset: str) -> Row:
    """The same load on the virtual clock, begun and averaged as the source did it."""
    prompt, answer, load = float(entry["isl"]), float(entry["osl"]), entry["concurrency_or_rate"]
    notes, source = entry["notes"], entry["source"]
    args: dict[str, object] = {"tensor-parallel-size": int(float(entry["tp"])), "enable-prefix-caching": False}
    lengths: dict[str, object] = {"prompt_tokens": round(prompt), "output_tokens": round(answer)}
    if load.startswith("c="):  # all users begin at once; InferenceX sends ten requests a user
        users = int(float(load[2:]))
        workload: dict[str, object] = {"users": users, "requests": 10 * users}
    else:
        rate = float(re.sub(r"[^0-9.]", "", load))
        workload = {"arrivals": {"process": "poisson", "rate": f"{rate}/s"}, "duration": 60}
    if "InferenceX" in notes:
        parts = (("prompt", prompt), ("output", answer))
        lengths = {f"{name}_tokens": f"uniform({0.8 * n:.0f}, {n:.0f})" for name, n in parts}
    if source == "B":
        seqs = re.search(r"max-num-seqs (\d+)", notes)
        caching = "no prefix cache" not in notes
        args |= {"max-num-seqs": int(seqs[1]) if seqs else None, "max-model-len": 512, "enable-prefix-caching": caching}
        args["enable-chunked-prefill"] = "no chunked prefill" not in notes
        if caching:  # 128 of about 203 tokens are one of ten beginnings
            lengths |= {
                "prompt_tokens": round(prompt),
                "prefix": {"shared": {"pool": 10, "popularity": 0, "tokens": 128}},
            }
    if source == "D":
        args |= {"max-model-len": 16384} | ({"enforce-eager": True} if "l4/" in preset else {})
    dtype = entry["dtype"].split()[0]
    if "gpt-oss" not in preset and dtype in ("fp8", "fp4", "int4"):
        args["quantization"] = dtype
    target = {"sim": preset, "args": {name: value for name, value in args.items() if value is not None}}
    spec = {"target": {**target, "clock": "virtual"}, "workload": {**workload, **lengths}, "seed": 1}
    found = figures(build(spec, "bench", Path()))
    at = "mean" if source == "A" else "p50"  # it states neither, and its TTFT grows with its opening burst as means do
    ttft, tpot = (found.latency_ms[name].statistic(at) for name in ("ttft", "tpot"))
    rates = found.throughput
    return Row(
        f"{source} {preset} {entry['dtype']}", f"TP{args['tensor-parallel-size']} {prompt:.0f}/{answer:.0f} {load}",
        (number(entry["ttft_ms_p50"]), ttft), (number(entry["tpot_ms_p50"]), tpot),
        (number(entry["out_tok_s_total"]), rates.output_tokens_per_s if rates else None),
    )  # fmt: skip


def within(errors: list[float], bound: float) -> float:
    return sum(abs(error) <= bound for error in errors) / len(errors)


def main() -> int:
    found = list(rows(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA))
    print("| group | load | TTFT p50, ms | TPOT p50, ms | output tokens/s |\n|---|---|---|---|---|")
    for row in found:
        cells = [
            "-"
            if measured is None or simulated is None
            else f"{measured:.4g} / {simulated:.4g} ({100 * row.error(name):+.0f} %)"
            for name, (measured, simulated) in (("ttft", row.ttft), ("tpot", row.tpot), ("tokens", row.tokens))
        ]
        print(f"| {row.group} | {row.load} | {' | '.join(cells)} |")
    print("\n| group | rows | TTFT | TPOT | output tokens/s |\n|---|---|---|---|---|")
    for group in sorted({row.group for row in found}):
        of = [row for row in found if row.group == group]
        cells = []
        for name in ("ttft", "tpot", "tokens"):
            errors = [error for row in of if (error := row.error(name)) is not None]
            cells.append(f"{100 * mean(map(abs, errors)):.0f} % ({100 * mean(errors):+.0f})" if errors else "-")
        print(f"| {group} | {len(of)} | {' | '.join(cells)} |")
    ttft, tpot, tokens = (
        [error for row in found if (error := row.error(name)) is not None] for name in ("ttft", "tpot", "tokens")
    )
    medians = [median(map(abs, errors)) for errors in (tpot, ttft, tokens)]
    print(
        f"\nTPOT: median error {100 * medians[0]:.1f} %, {100 * within(tpot, 0.25):.0f} % within 25 %; TTFT: median "
        f"{100 * medians[1]:.0f} %; output tokens/s: median {100 * medians[2]:.1f} %; {len(found)} rows"
    )
    return 0 if medians[0] <= 0.1 and within(tpot, 0.25) >= 0.8 and medians[1] <= 0.3 and medians[2] <= 0.12 else 1


if __name__ == "__main__":
    sys.exit(main())
