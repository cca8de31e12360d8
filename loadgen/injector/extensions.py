"""Whether the compiled part of the hot path is there: `_intake` reads sockets, `_events` cuts bodies into events.

Both are optional. Where there was no C compiler when Tailgate was installed, or where the environment says
TAILGATE_PURE_PYTHON, Python does what they do, with the same result.
"""

import importlib.util
import os

_PARTS = ("_intake", "_events")

AVAILABLE = not os.environ.get("TAILGATE_PURE_PYTHON") and all(
    importlib.util.find_spec(f"tailgate.loadgen.injector.http.{name}") is not None for name in _PARTS
)
