"""Connections, TLS, server-sent events and the compiled fast path: bytes and their time stamps.

What the bytes mean to an API is in `api`.
"""

import importlib.util
import os

# Whether the compiled parts are there and wanted: `_intake` reads sockets, `_events` cuts bodies into events. Where
# there was no C compiler when Tailgate was installed, or where TAILGATE_PURE_PYTHON is set, Python does the same.
AVAILABLE = not os.environ.get("TAILGATE_PURE_PYTHON") and all(
    importlib.util.find_spec(f"{__name__}.{part}") is not None for part in ("_intake", "_events")
)
