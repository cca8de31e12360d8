"""The kill switch: `abort_if` of a spec, watched while the run goes on.

    abort_if: {errors: 5%, ttft: p99 > 10s, spend: $5}

Errors count over the whole run, latencies over the last 30 seconds, spend is elapsed time at the deployment's price.
What it looks at are the injectors' running figures: good enough to stop a run, never to report one.
"""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from reports import slo
from workloads.errors import UserError

_WINDOW_S: Final = 30
_LEAST_ENDED: Final = 20
_LATENCIES: Final = {"ttft": "ttft_ms", "itl": "itl_ms", "e2e": "e2e_ms"}


class KillSwitch:
    """Takes each injector's tick; says why the run must end, once it must.

    Args:
        conditions: `abort_if` as written.
        price_per_hour: dollars per hour of the whole deployment; None where no price is known.

    Raises:
        UserError: a condition that can't be understood, or a spend limit without a price.
    """

    def __init__(self, conditions: Mapping[str, str], price_per_hour: float | None) -> None:
        rules = dict(conditions)
        self._spend = _dollars(rules.pop("spend", None))
        if self._spend is not None and price_per_hour is None:
            raise UserError(
                "a limit on spend needs a price", where="abort_if.spend", remedy="Give gpus.price_per_hour."
            )
        self._price_per_hour = price_per_hour or 0.0
        if "errors" in rules and not rules["errors"].lstrip().startswith((">", "<")):
            rules["errors"] = f"> {rules['errors']}"
        self._thresholds = slo.parse(rules, "abort_if").thresholds
        for threshold in self._thresholds:
            if threshold.metric not in (*_LATENCIES, "errors") or threshold.op not in (">", ">="):
                raise UserError(
                    f"{threshold.text!r} can't stop a run", where="abort_if",
                    remedy="Write e.g. errors: 5%, ttft: p99 > 10s, itl: p50 > 1s, e2e: p99 > 60s, or spend: $5.",
                )  # fmt: skip
        self._statuses: dict[int, dict[str, int]] = {}
        self._recent: deque[tuple[float, dict[str, Any]]] = deque()

    def tick(self, message: dict[str, Any], elapsed_s: float) -> str | None:
        """One injector's second; why the run must end, or None."""
        self._statuses[message["injector"]] = message["statuses"]
        self._recent.append((elapsed_s, message))
        while self._recent[0][0] < elapsed_s - _WINDOW_S:
            self._recent.popleft()
        if self._spend is not None and elapsed_s / 3600 * self._price_per_hour >= self._spend:
            return f"spend reached ${self._spend:g} (abort_if)"
        for threshold in self._thresholds:
            found = self._errors() if threshold.metric == "errors" else self._latency(threshold)
            if found is not None and found > threshold.limit:
                shown = f"{found:.1%}" if threshold.metric == "errors" else f"{found:,.0f} ms"
                return f"{threshold.text} (abort_if): it was {shown}"
        return None

    def _errors(self) -> float | None:
        totals: Counter[str] = Counter()
        for statuses in self._statuses.values():
            totals.update(statuses)
        ended = totals.total()
        return (ended - totals["ok"]) / ended if ended >= _LEAST_ENDED else None

    def _latency(self, threshold: slo.Threshold) -> float | None:
        key = _LATENCIES[threshold.metric]
        values = [value for _, message in self._recent for value in message[key]]
        percentile = threshold.percentile
        # So many that a few stragglers can't stop a run: ten values beyond the percentile.
        if len(values) < (10 / (1 - percentile / 100) if percentile else _LEAST_ENDED):
            return None
        if percentile is not None:
            return float(np.percentile(values, percentile))
        return float(max(values) if threshold.statistic == "max" else np.mean(values))


def _dollars(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(str(text).strip().lstrip("$"))
    except ValueError:
        raise UserError(f"{text!r} is not an amount", where="abort_if.spend", remedy="Write e.g. $5.") from None
