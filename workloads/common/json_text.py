"""JSON of others, as Python, pandas and servers write it."""

import json
from typing import Any

import orjson


def json_of(text: bytes) -> Any:
    """The value of a JSON text, in which NaN and Infinity may stand where Python and pandas write them.

    Raises:
        ValueError: it is none, or is nested too deeply to be read.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        if b"NaN" not in text and b"Infinity" not in text:
            raise
        try:
            return json.loads(text)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
