"""Measured quantile grids that come with the package: quantile functions of public traces.

The file `data/quantiles.json` holds them; `data/README.md` its sources and licences. A profile's own grids
can stand in the profile as `quantiles(...)`.
"""

import difflib
import json
from functools import cache
from importlib import resources
from typing import Any, cast


def grid(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Shares (0 to 1) and values of `TRACE.COLUMN`, e.g. `azure_2023_conv.input`; a ValueError names the nearest."""
    content = _content()
    trace, _, column = name.partition(".")
    values = content["traces"].get(trace, {}).get(column)
    if values is None:
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.3)
        raise ValueError(f"there is no quantile grid {name!r} (near it: {', '.join(near) or 'none'})")
    return tuple(content["q"]), tuple(values)


def names() -> list[str]:
    return [f"{trace}.{column}" for trace, columns in _content()["traces"].items() for column in columns]


@cache
def _content() -> dict[str, Any]:
    text = resources.files("tailgate.workloads").joinpath("data/quantiles.json").read_text(encoding="utf-8")
    return cast(dict[str, Any], json.loads(text))
