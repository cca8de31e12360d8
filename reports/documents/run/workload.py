"""The workload as it was sent, beside the one that was planned."""

from typing import Final

import numpy as np

from tailgate.reports.documents.model import Depth, Figure, Note, Row, Section, Table, section
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.workload_as_sent import WorkloadAsSent
from tailgate.reports.summary.model import Summary
from tailgate.workloads.common.formatting import plain

# A distance of lengths (Kolmogorov-Smirnov) that nobody could see in the curves.
_ALIKE: Final = 0.01


def workload(summary: Summary, analysis: Analysis, curves: Figure | None) -> Section:
    sent = summary.workload
    distances = f"prompt {plain(sent.prompt_ks)} and output {plain(sent.output_ks)}"
    return section(
        "The workload as sent",
        Table(["", "sum", "mean", "min", "p50", "p95", "max"], _lengths(analysis)),
        Note(f"Distance of lengths by usage from those planned (Kolmogorov-Smirnov): {distances}."),
        Table(
            ["", "planned", "sent", "its 95 % interval", "a Poisson process: 95 % of cases"],
            _beside(sent),
            dash="the plan doesn't say it, the server doesn't report it, or there are too few requests to tell",
        ),
        curves,
        depth=Depth.PAGE,
        short="Workload",
    )


def _lengths(analysis: Analysis) -> list[Row]:
    rows: list[Row] = []
    for kind in ("prompt_tokens", "output_tokens"):
        for name, origin in ((f"{kind}_planned", "planned"), (kind, "by usage")):
            values = analysis.run.column(name)[analysis.run.measured]
            values = values[np.isfinite(values)]
            if len(values):
                spread = np.percentile(values, [0, 50, 95, 100])
                label = f"{kind.replace('_', ' ')}, {origin}"
                rows.append([label, f"{values.sum():,.0f}", f"{values.mean():,.1f}", *(f"{v:,.0f}" for v in spread)])
    return rows


def _beside(sent: WorkloadAsSent) -> list[Row]:
    block = f", in the cache's blocks of {sent.cache_block_tokens}" if sent.cache_block_tokens else ""
    first, gaps, reuse = (
        [label, plain(planned), plain(value), "", ""]
        for label, planned, value in (
            ("requests/s", sent.planned_rps, sent.sent_rps),
            ("coefficient of variation of the gaps", sent.gap_cv_planned, sent.gap_cv_sent),
            (f"share of prompt tokens seen before{block}", sent.planned_reuse, sent.cached_share),
        )
    )
    dispersion: list[Row] = [
        [
            f"index of dispersion at {window.window_s} s", plain(window.planned), plain(window.sent),
            "" if window.sent_low is None else f"{window.sent_low:.2f} to {window.sent_high:.2f}",
            f"{window.poisson_low:.2f} to {window.poisson_high:.2f}",
        ]
        for window in sent.dispersion
    ]  # fmt: skip
    return [first, gaps, *dispersion, reuse]


def workload_line(sent: WorkloadAsSent) -> str:
    """How it came, beside how it was planned: gaps, burstiness, lengths, reuse; what isn't known is left out."""

    def beside(value: float | None, planned: float | None) -> str:
        return ("-" if value is None else f"{value:.2f}") + ("" if planned is None else f" (planned {planned:.2f})")

    parts = []
    if sent.gap_cv_sent is not None:
        parts.append(f"variation of gaps {beside(sent.gap_cv_sent, sent.gap_cv_planned)}")
    if sent.dispersion:
        windows = (f"at {window.window_s} s {beside(window.sent, window.planned)}" for window in sent.dispersion)
        parts.append(f"dispersion {', '.join(windows)}")
    if sent.prompt_ks is not None and sent.output_ks is not None:
        off = f"prompts {sent.prompt_ks:.3f}, answers {sent.output_ks:.3f}"
        alike = max(sent.prompt_ks, sent.output_ks) < _ALIKE
        far = f"distance of lengths from the plan (Kolmogorov-Smirnov): {off}"
        parts.append("prompt and answer lengths match the plan" if alike else far)
    if sent.cached_share is not None and (sent.cached_share or sent.planned_reuse):
        implied = "" if sent.planned_reuse is None else f" (planned {100 * sent.planned_reuse:.1f} %)"
        parts.append(f"{100 * sent.cached_share:.1f} % of prompt tokens cached{implied}")
    return f"as sent: {'; '.join(parts)}" if parts else ""
