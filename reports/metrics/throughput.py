"""Throughput over the steady window: tokens counted when they arrive, never over the drain.

Requests in flight at an edge count for what fell inside; an answer that was not streamed arrives at its end, all
of it. Latency is `reports.metrics.requests`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tailgate.reports.metrics.arrivals import Scan
from tailgate.reports.rundir.run import Run
from tailgate.workloads.common.arrays import Floats, Mask

# So much of the output may be of requests that failed, whose tokens are counted by their arrivals, in a rate that is
# judged.
_ESTIMATED: Final = 0.01


@dataclass(frozen=True)
class Throughput:
    """Rates over the steady window, per second; output is NaN where arrivals were not kept."""

    requests_per_s: float  # requests that ended `ok` inside the window
    # prompt tokens of requests whose first token arrived inside it (as planned where no `usage` came); of an answer
    # that was not streamed, whose end did
    input_tokens_per_s: float
    output_tokens_per_s: float  # tokens that arrived inside it
    # share of those output tokens whose number no `usage` confirms (the request failed or was cut off, or its stream
    # proves the usage wrong): counted as arrivals times the run's mean tokens per arrival
    estimated_share: float
    total_tokens_per_s: float


def came_whole(run: Run) -> Mask:
    """Answers that arrived well but not in pieces: with `usage` and no content arrival of their own."""
    return np.asarray(run.ok & (run.column("chunks") == 0) & np.isfinite(run.column("output_tokens")))


def answer_began_ns(run: Run) -> Floats:
    """When the first of an answer's tokens had arrived: where it was not streamed, with the last."""
    return np.where(came_whole(run), answer_ended_ns(run), run.column("first_token_ns"))


def answer_ended_ns(run: Run) -> Floats:
    """When the last of an answer's tokens had arrived."""
    last = run.column("last_token_ns")
    return np.where(np.isnan(last) & came_whole(run), run.column("end_ns"), last)


def answered_inside(run: Run) -> Mask:
    """Requests whose answer began to arrive inside the window."""
    return run.inside(answer_began_ns(run))


def ended_inside(run: Run) -> Mask:
    return run.ok & run.inside(answer_ended_ns(run))


def output_tokens_inside(run: Run, scan: Scan) -> tuple[Floats, Mask]:
    """Output tokens of each request that arrived inside the window, and where that is an estimate.

    The tokens of chunks after the first count alike: (output - first chunk's) / (chunks - 1) each. NaN all over
    where arrivals were not kept.
    """
    if not scan.known:
        return np.full(len(run), np.nan), np.zeros(len(run), np.bool_)
    output, chunks = run.column("output_tokens"), run.column("chunks")
    by_usage = np.isfinite(output) & (chunks > 0)
    all_chunks = chunks[by_usage].sum()
    per_arrival = output[by_usage].sum() / all_chunks if all_chunks else 1.0
    first = np.nan_to_num(run.column("first_chunk_tokens"), nan=0.0)
    has_first = first > 0
    # Without the first chunk's own count all chunks are taken to be alike.
    alike = np.where(has_first, chunks - 1, chunks)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(alike > 0, (output - np.where(has_first, first, 0.0)) / alike, 0.0)
    later_inside = scan.inside - np.where(has_first & scan.first_inside, 1, 0)
    exact = np.where(has_first & scan.first_inside, first, 0.0) + later_inside * each
    tokens = np.where(by_usage, exact, scan.inside * per_arrival)
    whole = came_whole(run)
    tokens = np.where(whole, np.where(run.inside(answer_ended_ns(run)), output, 0.0), tokens)
    return tokens, ~by_usage & (scan.inside > 0)


def why_estimated(run: Run, scan: Scan, rows: Mask, prompts: bool, outputs: bool) -> str:
    """Why the tokens of some `rows` inside the window are an estimate; empty if they are counted."""
    answers, causes = rows & run.ok, []
    if outputs and (wrong := int(np.count_nonzero(answers & run.usage_contradicted))):
        causes.append(f"the server's usage contradicts the stream in {wrong:,} answers")
    missing = answers & ((outputs & run.usage_missing) | (prompts & np.isnan(run.column("prompt_tokens"))))
    if missing.any():
        causes.append(f"{np.count_nonzero(missing):,} answers came without usage")
    tokens, estimated = output_tokens_inside(run, scan)
    total = float(tokens[rows].sum())
    if outputs and not causes and (part := float(tokens[rows & estimated].sum())) > _ESTIMATED * total:
        causes.append(f"{100 * part / total:.0f} % of the output tokens are of requests that failed or were cut off")
    return f"{' and '.join(causes)}: how many tokens came is an estimate" if causes else ""


def prompt_tokens_inside(run: Run) -> Floats:
    """Prompt tokens of each request whose answer began to arrive inside the window, else 0.

    By usage, or as planned where no usage came (the request failed after its first token).
    """
    by_usage = run.column("prompt_tokens")
    tokens = np.where(np.isnan(by_usage), run.column("prompt_tokens_planned"), by_usage)
    return np.where(answered_inside(run), tokens, 0.0)


def throughput(run: Run, scan: Scan, rows: Mask | None = None) -> Throughput | None:
    """Rates over the steady window, of some `rows` only if given; None where it has no length."""
    seconds = run.duration_s
    if seconds <= 0:
        return None
    mine = np.ones(len(run), np.bool_) if rows is None else rows
    tokens, estimated = output_tokens_inside(run, scan)
    tokens = np.where(mine, tokens, 0.0)
    total = float(tokens.sum())
    input_tokens_per_s = float(prompt_tokens_inside(run)[mine].sum()) / seconds
    return Throughput(
        requests_per_s=float(np.count_nonzero(mine & ended_inside(run))) / seconds,
        input_tokens_per_s=input_tokens_per_s,
        output_tokens_per_s=total / seconds,
        estimated_share=float(tokens[estimated].sum()) / total if total else 0.0,
        total_tokens_per_s=input_tokens_per_s + total / seconds,
    )
