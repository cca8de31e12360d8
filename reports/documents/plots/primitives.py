"""What every figure is drawn with: lines, points with error bars, reference lines, axes, legends.

Colours are names of the page's CSS variables (`--c1`), so that light and dark both work. Numbers are cut to five
significant digits: no one sees more, and the page stays small.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import numpy as np

from tailgate.reports.documents.model import Row
from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.common.formatting import plain

Json = dict[str, Any]
Ends = Sequence[float | None]
LEGEND: Final[Json] = {"showlegend": True, "legend": {"orientation": "h", "y": 1.01, "yanchor": "bottom"}}
SECONDS: Final = "seconds from the run's start"
# Ticks of a logarithmic axis within each decade, from few to many.
_STEPS: Final = ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5), (1, 1.5, 2, 3, 5, 7))


def line(x: Iterable[float], y: Iterable[float | None], name: str, colour: str, **style: Any) -> Json:
    """A line; `style` goes to plotly's `line`. Points are marked where some have no neighbour to be joined with."""
    heights = [short(v) for v in y]
    around = zip([None, *heights], heights, [*heights[1:], None], strict=False)
    alone = any(before is None and v is not None and after is None for before, v, after in around)
    marks = {"mode": "lines+markers", "marker": {"size": 4}} if alone else {"mode": "lines"}
    return {
        "type": "scatter", **marks, "name": name, "line": {"color": colour, "width": 1.6, **style},
        "x": [short(v) for v in x], "y": heights,
    }  # fmt: skip


def band(x: Sequence[float], low: Iterable[float | None], high: Iterable[float | None], colour: str) -> list[Json]:
    """A 95 % interval along a line, as an area."""
    edges = [line(x, edge, "95 % interval", colour, width=0) | {"hoverinfo": "skip"} for edge in (low, high)]
    return [edges[0], edges[1] | {"fill": "tonexty", "fillcolor": f"{colour}-soft"}]


def points(
    x: Sequence[Any],
    y: Sequence[Any],
    colour: str | Sequence[str],
    *,
    hover: str = "",
    marker: Json | None = None,
    **trace: Any,
) -> Json:
    """Points; `hover` is the template of a point's text, `marker` and `trace` are added to plotly's own."""
    template = {"hovertemplate": f"{hover}<extra></extra>"} if hover else {}
    return {
        "type": "scatter", "mode": "markers", "name": "", "x": [*map(short, x)], "y": [*map(short, y)],
        "marker": {"size": 8, "color": colour, **(marker or {})}, **template, **trace,
    }  # fmt: skip


def joined(name: str, colour: str, width: float) -> Json:
    """What joins points by lines, added to their trace."""
    return {"mode": "lines+markers", "name": name, "line": {"color": colour, "width": width}}


def error_bars(values: Sequence[float], lows: Ends, highs: Ends, colour: str, width: float = 1.4) -> Json:
    """Bars from low to high around the values; none where an end is not known."""
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": width, "width": 4,
        "array": [0 if high is None else short(high - v) for v, high in zip(values, highs, strict=True)],
        "arrayminus": [0 if low is None else short(v - low) for v, low in zip(values, lows, strict=True)],
    }  # fmt: skip


def heat(
    x: Floats, y: Floats, edges: tuple[Floats, Floats], middles: tuple[Sequence[Any], Sequence[Any]], hover: str
) -> Json:
    """How many points lie in each field of a grid: the stronger its colour, the more."""
    counts, _, _ = np.histogram2d(y, x, bins=[edges[1], edges[0]])
    return {
        "type": "heatmap", "x": middles[0], "y": middles[1],
        "z": [[int(n) or None for n in row] for row in counts.tolist()],
        "colorscale": [[0, "--c1-soft"], [1, "--c1"]], "showscale": False, "hoverongaps": False,
        "hovertemplate": hover + ": %{z} requests<extra></extra>",
    }  # fmt: skip


def reference(
    at: float, colour: str, *, axis: str = "x", other: str = "paper", ends: tuple[float, float] = (0, 1), **style: Any
) -> Json:
    """A line at one value of `axis` (`x`, `y`, `y2`, ...), from end to end of the other one."""
    along, across = axis[0], "y" if axis[0] == "x" else "x"
    return {
        "type": "line", f"{along}ref": axis, f"{along}0": at, f"{along}1": at, f"{across}ref": other,
        f"{across}0": ends[0], f"{across}1": ends[1], "line": {"color": colour, "width": 1, **style},
    }  # fmt: skip


def layout(height: int, x: Json, y: Json, **more: Any) -> Json:
    """A figure's layout: without a legend, unless `more` has one."""
    return {"height": height, "showlegend": False, "xaxis": x, "yaxis": y, **more}


def axis(title: str, **more: Any) -> Json:
    return {"title": {"text": title}, **more}


def log_axis(values: Iterable[float | None], most: int = 7) -> Json:
    """A logarithmic axis with at most so many ticks between its ends, by default what a narrow plot has room for.

    A linear one where the values span little, and from zero where they hold a zero: a logarithm has no place for the
    gap of two tokens that came at once.
    """
    finite = [v for v in values if v is not None and math.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    if low <= 0:
        return {"rangemode": "tozero"}
    if high < 3 * low:
        return {"rangemode": "normal"}
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    choices = [[step * 10.0**decade for decade in decades for step in steps] for steps in _STEPS]
    fitting = [ticks for ticks in choices if sum(low <= tick <= high for tick in ticks) <= most]
    ticks = fitting[-1] if fitting else choices[0]
    return {"type": "log", "tickvals": ticks, "ticktext": [*map(_tick, ticks)], "tickangle": 0}


def _tick(value: float) -> str:
    return plain(value) if value < 1e5 else f"{value / 1e3:g}k" if value < 1e6 else f"{value / 1e6:g}M"


def text(words: str, x: Any, y: float, xref: str = "paper", yref: str = "paper", **style: Any) -> Json:
    """Words in a plot, without an arrow. On a logarithmic axis x and y are logarithms."""
    return {"text": words, "x": x, "y": y, "xref": xref, "yref": yref, "showarrow": False, **style}


def objective(words: str, at: float, axis: str, scale: Json, end: Literal["left", "right"] = "right") -> Json:
    """What the line of an objective demands, at one end of it; `scale` is the axis that it crosses."""
    y, x = math.log10(at) if scale.get("type") == "log" else at, 1 if end == "right" else 0
    style = {"font": {"size": 11, "color": "--c4"}, "bgcolor": "--paper", "opacity": 0.85}
    return text(label(words, 60), x, y, "paper", axis, xanchor=end, yanchor="bottom", **style)


def label(text: str, most: int = 32) -> str:
    """Foreign text for plotly, which understands a few tags: as text, and short; the table has it whole.

    It is cut after a word where one ends in its second half.
    """
    if len(text) > most:
        kept = text[: most - 1]
        at = kept.rfind(" ")
        text = f"{kept[:at] if at >= most // 2 else kept}…"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short(value: Any) -> Any:
    """A number to five significant digits, None where it is not finite; anything else as it is."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None


def number(value: float | None) -> str:
    """A table's cell: four significant digits, empty for nothing."""
    return "" if value is None or math.isnan(value) else plain(value)


def thinned(rows: Sequence[Row], most: int = 40) -> Sequence[Row]:
    """About `most` of the rows, evenly."""
    return rows[:: max(1, len(rows) // most)]
