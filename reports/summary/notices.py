"""What a reader must know of a run besides its figures: what could not be read, and what stands for something else."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.breakdown import GroupFigures

# A simulated step that is late by more than this share of a token gap is worth a word.
_SIMULATED_LATE: Final = 0.1
# What a run lacks without a file.
_WITHOUT: Final = {
    "arrivals.parquet": "no ITL, stalls or tokens over time",
    "client.parquet": "whether the load generator kept up can't be checked",
    "plan.parquet": "no reuse of prefixes is known",
    "server.parquet": "no figures of the server",
    "gpu.parquet": "no figures of GPUs",
    "host.parquet": "no figures of the host",
}


def notices(analysis: Analysis, splits: Mapping[str, Sequence[GroupFigures]], unreadable_events: int) -> Iterator[str]:
    run, sample = analysis.run, analysis.scan.sample
    for name, why in run.problems.items():
        if _is_news(name, why):
            yield f"{name} {why}: {_WITHOUT[name]}"
    if run.absent:
        yield f"requests.parquet has no column {', '.join(run.absent)}: what they tell is left out"
    if unreadable_events:
        yield f"events.jsonl: {unreadable_events:,} lines can't be read and are left out"
    if sample.stride > 1:
        yield (
            f"ITL over time, by group and its intervals are from every {sample.stride}th request "
            "(its percentiles over all requests are exact)"
        )
    for name, groups in splits.items():
        if (others := groups[-1].stands_for) > 1:
            yield f"the split by {name.replace('_', ' ')} shows the {others:,} smallest groups together"
    yield from _simulated_late(analysis)


def _is_news(name: str, why: str) -> bool:
    """Telemetry that was never sampled is no news; a damaged file always is."""
    return "missing" not in why or name in ("arrivals.parquet", "client.parquet", "plan.parquet")


def _simulated_late(analysis: Analysis) -> Iterator[str]:
    """Where an embedded engine could not keep its own time, its latencies are this machine's."""
    server, gap = analysis.server, analysis.latencies["itl"].at(50).value
    if not analysis.run.manifest.target.simulated or server is None or not gap:
        return
    late_s = server.delta("tailgate_engine_step_lateness_seconds_sum")
    steps = server.delta("tailgate_engine_step_lateness_seconds_count")
    if late_s and steps and 1000 * late_s / steps > _SIMULATED_LATE * gap:
        yield (
            f"the embedded engine's steps came {1000 * late_s / steps:.1f} ms late on average, where the median gap "
            f"between tokens is {gap:.1f} ms: this machine is too slow for the load that it simulates"
        )
