"""A workload as a small picture (SVG, no script): arrivals over time and the laws of its lengths. For the docs."""

from html import escape
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.plan.plan import Plan
from tailgate.workloads.plan.summary import plan_figures, timed_s
from tailgate.workloads.statistics.arrivals import counts_in

_WIDTH: Final = 760
_PANEL: Final = (340, 120)
_BLUE, _ORANGE, _GREY = "#3b6fb6", "#c8641e", "#8a8a8a"


def picture(plan: Plan, title: str) -> str:
    """The SVG document."""
    figures, times = plan_figures(plan), timed_s(plan)
    prompt, output = (plan.table[name].to_numpy() for name in ("prompt_tokens", "output_tokens"))
    panels = [
        _arrivals(times, plan.span_s) if len(times) > 1 else _turns(plan),
        _laws({"prompt": (prompt, _BLUE), "output": (output, _ORANGE)}),
    ]
    body = "".join(f'<g transform="translate({30 + place * 380},62)">{panel}</g>' for place, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} 206" font-family="sans-serif" font-size="11" '
        f'role="img" aria-label="{escape(title)}"><rect width="{_WIDTH}" height="206" fill="#ffffff"/>'
        f'<text x="30" y="20" font-size="14" font-weight="bold">{escape(title)}</text>'
        f'<text x="30" y="36" fill="{_GREY}">{escape(_caption(figures))}</text>{body}</svg>\n'
    )


def _caption(figures: dict[str, Any]) -> str:
    parts = [f"{figures['requests']:,} requests"]
    if "starts_per_s" in figures:
        parts.append(f"{figures['starts_per_s']:.3g} arrivals/s")
        parts += [
            f"dispersion at {one['window_s']:g} s {one['value']:.3g}"
            for one in figures["dispersion"]
            if one["value"] is not None
        ]
    else:
        parts.append("closed loop")
    if figures["prompt_tokens_seen_before"]:
        parts.append(f"{100 * figures['prompt_tokens_seen_before']:.0f} % of prompt tokens seen before")
    return ", ".join(parts)


def _arrivals(times_s: Floats, span: float) -> str:
    bins = 170
    rates = counts_in(times_s, span / bins, bins) / (span / bins)
    width, height = _PANEL
    top = float(rates.max()) or 1.0
    bars = "".join(
        f'<rect x="{k * width / bins:.1f}" y="{height - height * r / top:.1f}" width="{width / bins:.2f}" '
        f'height="{height * r / top:.1f}"/>'
        for k, r in enumerate(rates.tolist())
        if r
    )
    return (
        f'<g fill="{_BLUE}">{bars}</g>{_frame()}<text x="0" y="-4" fill="{_GREY}">arrivals/s, up to {top:.3g}</text>'
        f'<text x="{width}" y="{height + 14}" text-anchor="end" fill="{_GREY}">{span:,.0f} s</text>'
    )


def _turns(plan: Plan) -> str:
    """In a closed loop: prompt lengths in the order of the sequence, which shows conversations growing."""
    prompt = plan.table["prompt_tokens"].to_numpy()[:340].astype(np.float64)
    width, height = _PANEL
    top = float(prompt.max())
    points = " ".join(f"{k * width / len(prompt):.1f},{height - height * p / top:.1f}" for k, p in enumerate(prompt))
    return (
        f'<polyline points="{points}" fill="none" stroke="{_BLUE}"/>{_frame()}'
        f'<text x="0" y="-4" fill="{_GREY}">prompt tokens of the first {len(prompt)} requests, up to {top:,.0f}</text>'
    )


def _laws(laws: dict[str, tuple[npt.NDArray[Any], str]]) -> str:
    width, height = _PANEL
    low = max(1.0, min(float(np.quantile(values, 0.005)) for values, _ in laws.values()))
    high = max(float(np.quantile(values, 0.999)) for values, _ in laws.values()) * 1.05
    scale = width / np.log(high / low)
    shares = np.linspace(0.002, 0.999, 120)
    drawn = ""
    for place, (name, (values, colour)) in enumerate(laws.items()):
        x = np.clip(np.log(np.maximum(np.quantile(values, shares), low) / low) * scale, 0, width)
        points = " ".join(f"{a:.1f},{height - height * b:.1f}" for a, b in zip(x, shares, strict=True))
        drawn += f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        drawn += f'<text x="{4 + 60 * place}" y="12" fill="{colour}">{name}</text>'
    for decade in range(int(np.ceil(np.log10(low))), int(np.floor(np.log10(high))) + 1):
        at = np.log(10.0**decade / low) * scale
        drawn += f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height}" stroke="#dddddd"/>'
        drawn += f'<text x="{at:.1f}" y="{height + 14}" text-anchor="middle" fill="{_GREY}">{10**decade:,}</text>'
    return f'{drawn}{_frame()}<text x="0" y="-4" fill="{_GREY}">share of requests with at most so many tokens</text>'


def _frame() -> str:
    width, height = _PANEL
    return f'<rect width="{width}" height="{height}" fill="none" stroke="#bbbbbb"/>'
