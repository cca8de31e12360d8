"""Prometheus text into numbers, cheaply, when nearly the same page comes every second.

A line is `name{labels} value`. What stands before the value is parsed once, by prometheus_client, and known
by its text from then on; of every later page only the values are read.
"""

import json
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

VLLM_PREFIXES = ("vllm:", "tailgate_", "process_")


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """A time series: its name and its labels as a JSON object with sorted keys."""

    name: str
    labels: str


class PageReader:
    """Reads one server's pages; remembers the series it has seen.

    vLLM's pages are cut to what concerns serving (`VLLM_PREFIXES`); of other servers everything is kept.
    Creation times (`*_created`) never are.
    """

    def __init__(self) -> None:
        self._known: dict[str, SeriesKey | None] = {}
        self.is_vllm = False

    def read(self, page: str) -> tuple[list[SeriesKey], list[float]]:
        """The series of a page and their values, in the page's order.

        Raises:
            ValueError: the page isn't Prometheus text.
        """
        if not self.is_vllm:
            self.is_vllm = "\nvllm:" in page or page.startswith("vllm:")
        keys: list[SeriesKey] = []
        values: list[float] = []
        known = self._known
        for line in page.splitlines():
            if not line or line[0] == "#":
                continue
            head, _, value = line.rpartition(" ")
            if not head.endswith("}") and " " in head:  # a time behind the value, as a federating Prometheus adds
                head, _, value = head.rpartition(" ")
            try:
                key = known[head]
            except KeyError:
                key = known[head] = self._learn(f"{head} {value}", head)
            if key is not None:
                keys.append(key)
                values.append(float(value))
        return keys, values

    def _learn(self, line: str, head: str) -> SeriesKey | None:
        """The series of a line seen for the first time; None: not kept."""
        name = head.partition("{")[0]
        if name.endswith("_created") or (self.is_vllm and not name.startswith(VLLM_PREFIXES)):
            return None
        samples = [s for family in text_string_to_metric_families(line + "\n") for s in family.samples]
        if len(samples) != 1:
            raise ValueError(f"not a sample: {line[:200]!r}")
        if samples[0].timestamp is not None:
            raise ValueError(f"samples with times of their own aren't supported: {line[:200]!r}")
        return SeriesKey(samples[0].name, json.dumps(samples[0].labels, sort_keys=True, separators=(",", ":")))
