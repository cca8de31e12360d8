"""Locust's web UI over a run: rows for TTFT, ITL and E2E of each class, fed from the injectors' ticks.

For eyes only: Locust keeps two significant digits, and a tick tells at most 200 latencies a second. Its total counts
requests (by their E2E), so that its rate and its failures are the run's.
"""

from typing import Any, Final

from locust.env import Environment

from tailgate.loadgen.control.address import split_address
from tailgate.loadgen.control.channel import Message

DEFAULT_PORT: Final = 8089
_ROWS: Final = (("TTFT", "ttft_ms"), ("ITL", "itl_ms"), ("E2E", "e2e_ms"))


class WebUi:
    """The web UI of one run, served while it goes on."""

    def __init__(self, environment: Environment, address: str) -> None:
        host, port = split_address(address, DEFAULT_PORT, "--ui")
        self._stats = environment.stats
        self._ui = environment.create_web_ui(host, port)

    def on_message(self, message: Message) -> None:
        if message["op"] == "tick":
            for name, second in message.get("classes", {}).items():
                self._take_class(name, second)

    def _take_class(self, name: str, second: dict[str, Any]) -> None:
        for row, key in _ROWS:
            picked = second[key]
            if not picked:
                continue
            # What was picked stands for all that ended ok.
            each, rest = divmod(max(second["ok"], len(picked)), len(picked))
            entry = self._stats.entries[(name, row)]
            for k, ms in enumerate(picked):
                for _ in range(each + (k < rest)):
                    entry.log(ms, 0)
                    if row == "E2E":
                        self._stats.total.log(ms, 0)
        for _ in range(second["failed"]):
            self._stats.log_error("E2E", name, "not ok: see the report")

    def close(self) -> None:
        self._ui.stop()  # type: ignore[no-untyped-call]
