"""What every figure is drawn with: lines, points with error bars, reference lines, axes, legends.

Colours are names of the page's CSS variables (`--c1`), so that light and dark both work. Numbers are cut to five
significant digits: no one sees more, and the page stays small.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from tailgate.reports.documents.model import Row
from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.common.formatting import plain

Json = dict[str, Any]
Ends = Sequence[float | None]
LEGEND: Final[Json] = {"showlegend": True, "legend": {"orientation": "h", "y": 1.01, "yanchor": "bottom"}}
SECONDS: Final = "seconds from the run's start"


def line(x: Iterable[float], y: Iterable[float | None], name: str, colour: str, **style: Any) -> Json:
    """A line; `style` goes to plotly's `line`."""
    return {
        "type": "scatter", "mode": "lines", "name": name, "line": {"color": colour, "width": 1.6, **style},
        "x": [short(v) for v in x], "y": [short(v) for v in y],
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
    """How many points lie in each field of a grid: the darker, the more."""
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


def log_axis(values: Iterable[float | None]) -> Json:
    """A logarithmic axis labelled at 1, 2 and 5 of each decade; a linear one where the values span little."""
    finite = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    if not finite or max(finite) < 3 * min(finite):
        return {"rangemode": "normal"}
    decades = range(math.floor(math.log10(min(finite))) - 1, math.ceil(math.log10(max(finite))) + 2)
    steps = (1,) if len(decades) > 6 else (1, 2, 5)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [plain(tick) for tick in ticks]}


def label(text: str, most: int = 32) -> str:
    """Foreign text for plotly, which understands a few tags: as text, and short; the table has it whole."""
    text = text if len(text) <= most else f"{text[: most - 1]}…"
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
