"""What a GPU-hour costs: the user's own figure, the user's own file, or the catalogue with its sources.

Used when a run is set up (so that the manifest holds the price that was used) and when costs are worked out.
The formulas are `reports.cost.cost`.
"""

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pydantic

from tailgate.workloads.common.errors import UserError

OWN_FILE_VARIABLE: Final = "TAILGATE_PRICES"
_CATALOGUE: Final = Path(__file__).parent / "prices.json"
# Without a wish the price is the first of these classes that the catalogue has for a GPU, its median.
_CLASSES: Final = ("neocloud", "serverless", "hyperscaler", "marketplace")


@dataclass(frozen=True)
class Price:
    """US dollars per GPU-hour, and where that comes from."""

    usd_per_gpu_hour: float
    source: str


class _Entry(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="ignore", populate_by_name=True)

    gpu: str
    usd_per_gpu_hour: float = pydantic.Field(ge=0)
    provider: str = ""
    kind: str = pydantic.Field(default="", alias="class")
    date: str = ""
    source: str = ""


def price_of(gpus: Mapping[str, Any]) -> Price | None:
    """The price for the `gpus:` of a spec (`type`, `price_per_hour`); None if nothing is known of it.

    A stated price wins, then the user's file (named by TAILGATE_PRICES), then the catalogue.

    Raises:
        UserError: the user's file is unreadable, or a type is in neither.
    """
    stated = gpus.get("price_per_hour")
    if stated is not None:
        return Price(float(stated), str(gpus.get("price_source") or "stated in the spec"))
    gpu = gpus.get("type")
    if not gpu:
        return None
    own = os.environ.get(OWN_FILE_VARIABLE)
    for path in ([Path(own)] if own else []) + [_CATALOGUE]:
        entries = _read(path)
        if price := _chosen([entry for entry in entries if entry.gpu == gpu]):
            return price
    near = difflib.get_close_matches(str(gpu), sorted({entry.gpu for entry in entries}), 1)
    own = "give gpus.price_per_hour in dollars."
    hint = f"Did you mean {near[0]}? Or {own}" if near else own.capitalize()
    raise UserError(f"no price is known for {gpu!r}", where="gpus.type", remedy=hint)


def _chosen(entries: list[_Entry]) -> Price | None:
    for kind in (*_CLASSES, ""):
        offers = sorted((e for e in entries if e.kind == kind), key=lambda e: (e.usd_per_gpu_hour, e.provider))
        if offers:
            middle = offers[(len(offers) - 1) // 2]
            return Price(middle.usd_per_gpu_hour, f"{middle.provider}, {middle.kind}, {middle.date}, {middle.source}")
    return None


def _read(path: Path) -> list[_Entry]:
    try:
        return [_Entry.model_validate(entry) for entry in json.loads(path.read_bytes())["prices"]]
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=f"{OWN_FILE_VARIABLE}: {path}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"is not a price list: {error}",
            where=f"{OWN_FILE_VARIABLE}: {path}",
            remedy='It looks like {"prices": [{"gpu": "h100-sxm", "usd_per_gpu_hour": 2.49}]}.',
        ) from error
