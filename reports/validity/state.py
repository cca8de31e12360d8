"""Validity by the state of things: a warm deployment, a declared cache, unbroken sampling, untouched files.

What the injector knows of itself is `reports.validity.client`, what the server's counters tell
`reports.validity.server`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.workload_as_sent import planned_reuse
from tailgate.reports.rundir.manifest import unsummed
from tailgate.reports.rundir.run import Run
from tailgate.reports.telemetry.gpu import GpuView
from tailgate.reports.validity.client import Check, at_most

WARMTH_SHARE: Final = 0.3
CACHE_SHARE: Final = 0.02
TEMPLATE_TOKENS: Final = 64
TELEMETRY_GAP_S: Final = 3.0
_OF_GENERATOR: Final = (
    "client_resources", "clock", "dispatch_lag", "turnaround_lag", "receive_lag", "coalesced_arrivals",
    "coalesced_first_tokens", "injector_busy", "bursts", "own_error",
)  # fmt: skip
_NEED_EVERY_ROW: Final = ("offered_load", "turnaround_lag", "bookkeeping", "token_counts", "foreign_traffic")


def state_checks(analysis: Analysis, gpus: Sequence[GpuView]) -> Iterator[Check]:
    yield warmth_check(analysis)
    yield cache_check(analysis)
    yield from telemetry_check(gpus)
    yield from files_check(analysis.run)
    yield from records_check(analysis.run)


def warmth_check(analysis: Analysis) -> Check:
    """Were the first answers slower than the later ones, without a higher rate to explain it?

    Judged is the first tenth of the measured requests: its median TPOT over the rest's, where nearly all of
    them lie above the later median (chance would put half there) and requests came no faster than later.
    """
    run, bound = analysis.run, 1 + WARMTH_SHARE
    settled = run.manifest.telemetry.get("settle") or {}
    if settled.get("steady") is False:
        why = f"the server's pace was not steady after {settled['seconds']:.0f} s of warm-up, extended once"
        remedy = "Look for what else uses its GPUs or cores; settle: none (--no-settle) measures it as it is."
        return Check("warmth", "fail", None, None, "", why, remedy)
    why = "median TPOT of the first tenth of the requests over the rest's"
    order = analysis.figures.order
    wanted = (run.ok & run.measured & np.isfinite(analysis.figures.ms["tpot"]))[order]
    rows = order[wanted]
    first = len(rows) // 10
    if first < 20:
        return Check("warmth", "unchecked", None, bound, "times", "too few requests with a TPOT to see a trend")
    tpot = analysis.figures.ms["tpot"][rows]
    early, late = float(np.median(tpot[:first])), float(np.median(tpot[first:]))
    ratio = early / late if late > 0 else 1.0
    if ratio <= bound or float(np.mean(tpot[:first] > late)) <= 0.9:
        return Check("warmth", "ok", ratio, bound, "times", why)
    begun = run.column("dispatched_ns")[rows] / 1e9
    early_rate, late_rate = (len(part) / max(float(np.ptp(part)), 1e-9) for part in (begun[:first], begun[first:]))
    if early_rate > 1.1 * late_rate:
        return Check("warmth", "ok", ratio, bound, "times", f"{why}; requests came faster then")
    return Check("warmth", "fail", ratio, bound, "times", why, "Lengthen the warm-up (workload.warmup, --warmup).")


def cache_check(analysis: Analysis) -> Check:
    """With an isolated or cold cache no more may be found in it than the plan itself repeats."""
    run, bound = analysis.run, 100 * CACHE_SHARE
    policy = run.manifest.cache
    rows = run.ok & run.measured
    prompt, cached = run.column("prompt_tokens")[rows], run.column("cached_tokens")[rows]
    by_usage = np.isfinite(prompt) & np.isfinite(cached)
    total = float(prompt[by_usage].sum())
    share = float(cached[by_usage].sum()) / total if total else None
    if policy not in ("isolated", "cold"):
        cached_text = "" if share is None else f": {100 * share:.1f} % of the prompt tokens were cached"
        return Check("cache", "ok", None, None, "", f"declared {policy}, which is only reported{cached_text}")
    if share is None:
        return Check("cache", "unchecked", None, bound, "%", "the server does not tell cached tokens in its usage")
    implied = planned_reuse(run, rows)
    if implied is None and (run.column("turn")[rows] > 0).any():
        why = "later turns send their history again, which is cached rightly, and the plan doesn't name its blocks"
        return Check("cache", "unchecked", None, bound, "%", why)
    if run.manifest.content.get("kind") == "replay":
        return Check("cache", "unchecked", None, bound, "%", "replayed bodies share what their log's users shared")
    # What every prompt begins with (a chat template) is found from the second request on.
    allowed = (implied or 0.0) + TEMPLATE_TOKENS * np.count_nonzero(by_usage) / total
    why = "prompt tokens found in the cache beyond what the plan repeats and a chat template's length"
    excess = 100 * max(0.0, share - allowed)
    return at_most("cache", excess, bound, "%", why, "Something else filled the cache: use cache: isolated or cold.")


def telemetry_check(gpus: Sequence[GpuView]) -> Iterator[Check]:
    if gpus:
        yield at_most(
            "telemetry", max(gpu.gap_s for gpu in gpus), TELEMETRY_GAP_S, "s", "longest time without a sample of a GPU",
            "See events.jsonl: the GPU sampler was starved, or the GPU fell off the bus.",
        )  # fmt: skip


def files_check(run: Run) -> Iterator[Check]:
    """The measured files are those that were written when the run ended; nothing of a run without files."""
    if run.tables is not None:
        return
    unknown = unsummed(run.path, run.manifest)
    if unknown and not run.altered:
        why = f"the manifest keeps no checksum of {', '.join(unknown)}"
        yield Check("files", "unchecked", None, 0.0, "files", why)
        return
    why = "no file was changed or taken away after the run"
    if run.altered:
        why = f"after the run {', '.join(f'{name} is {how}' for name, how in run.altered.items())}"
    yield at_most("files", float(len(run.altered)), 0.0, "files", why, "Restore them, or measure again.")


def records_check(run: Run) -> Iterator[Check]:
    """Each request was reported once, and in a closed loop every injector to its end.

    An open loop's missing rows are known from its plan (`lost_rows`); a closed loop's plan has no end, so an injector
    that vanished leaves no gap in it. Nothing in runs from before these were counted.
    """
    manifest = run.manifest
    if manifest.duplicates is None:
        return
    why = f"{manifest.duplicates:,} requests were reported more than once: sent more than once, or counted wrongly"
    remedy = "Please report it with the run directory."
    yield at_most("duplicates", float(manifest.duplicates), 0.0, "rows", why, remedy)
    if manifest.loop == "closed":
        count = len(manifest.unclosed)
        why = f"{count} injectors never closed their records: what their users had in flight is not known"
        unclosed, remedy = float(count), "See events.jsonl: an injector or worker died."
        yield at_most("unclosed_injectors", unclosed, 0.0, "injectors", why, remedy)


def without_lost(run: Run, checks: Sequence[Check]) -> list[Check]:
    """The checks, those that need every row unchecked where a crash took some.

    The last second of an injector that died is missing from the records and from its own counters. Checks that hold
    the two, or the server's counters, against each other would fail for that alone, and name a wrong remedy.
    """
    lost = int(run.is_text("status", "lost").sum())
    if not lost or run.manifest.state in ("complete", "aborted"):
        return list(checks)
    why = f"{lost:,} requests were lost with their injector: what they did is not known"
    return [
        replace(check, status="unchecked", why=why, remedy="")
        if check.name in _NEED_EVERY_ROW and check.status == "fail"
        else check
        for check in checks
    ]


def on_virtual_clock(run: Run, checks: Sequence[Check]) -> list[Check]:
    """The checks of a run, those that judge a load generator answered at once where none took part."""
    if run.manifest.clock != "virtual":
        return list(checks)
    why = "virtual clock: no load generator took part"
    return [Check(check.name, "ok", why=why) if check.name in _OF_GENERATOR else check for check in checks]
