"""What an experiment may spend, as users write it: `at most 40 min, at most $15`."""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from tailgate.workloads.common.units import parse_duration
from tailgate.workloads.common.validation import Strict

_LONG_UNITS: Final = {r"(hour|hr)s?": "h", r"(minute|min)s?": "min", r"(second|sec)s?": "s"}


class Budget(Strict):
    """Seconds and dollars; None: as much as it takes."""

    seconds: float | None = None
    dollars: float | None = None


def parse_budget(value: Any) -> Any:
    """A budget of one text or a list of them; a mapping is left to `Budget`.

    Raises:
        ValueError: a part is neither a duration nor an amount, or there are two of a kind.
    """
    if isinstance(value, Budget | dict) or value is None:
        return value
    limits: dict[str, float] = {}
    parts = [
        part for text in (value if isinstance(value, list) else [value]) for part in re.split(r",| and ", str(text))
    ]
    for part in parts:
        text = part.strip().removeprefix("at most").strip()
        if text.startswith("$"):
            try:
                limits["dollars"] = float(text[1:])
            except ValueError:
                raise ValueError(f"{part!r} is not an amount (write at most $15)") from None
            continue
        for word, unit in _LONG_UNITS.items():
            text = re.sub(rf"(?<=[\d\s]){word}\b", unit, text, flags=re.IGNORECASE)
        try:
            limits["seconds"] = parse_duration(text.replace(" ", ""))
        except ValueError as error:
            raise ValueError(f"{error}, nor an amount (write at most 40 min, at most $15)") from None
    if len(limits) < len(parts):
        raise ValueError(f"{value!r} has two of a kind (write one duration, one amount: at most 40 min, at most $15)")
    return limits


BudgetText = Annotated[Budget, BeforeValidator(parse_budget)]
