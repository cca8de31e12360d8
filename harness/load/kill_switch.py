"""The kill switch: `abort_if` of a spec, watched while the run goes on.

    abort_if: {errors: 5%, ttft: p99 > 10s, spend: $5}

Errors count over the whole run and over the last 30 seconds, latencies over the last 30 seconds, spend is the time
since the deployment's launch at its price. What it looks at are the injectors' running figures: good enough to stop a
run, never to report one.

A latency's limit is broken where more requests are beyond it than its percentile allows, and chance can't explain it.
Each request counts once, when its fate is known: when its token came in time, or when the limit had passed without
one. So requests that wait for ever stop a run like those that were slow, and long ones are not counted twice.
"""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tailgate.reports.metrics import slo
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.harness.config.run_spec import RunSpec

_WINDOW_S: Final = 30
# Several injectors' ticks are judged together, not each anew.
_EVERY_S: Final = 0.5
_LEAST_ENDED: Final = 20
_LEAST_BEYOND: Final = 5
# Chance may stop a run that is just at its limit so often. It is asked twice a second: hence so rarely.
_CHANCE: Final = 1e-4
_LATENCIES: Final = ("ttft", "itl", "e2e")


class AbortReason(NamedTuple):
    """Why a run must end: the rule's key in `abort_if`, and a sentence."""

    rule: str
    text: str


class _Wait(NamedTuple):
    """What is known of a latency: `ms` as it was, or so far; `weight`: how many requests (gaps) this one stands for."""

    weight: float
    ms: float
    known: bool
    since_s: float  # since it began to count

    def beyond(self, limit_ms: float) -> bool | None:
        """Whether it is beyond a limit; None while that is open, or was settled before the window."""
        if not (self.known or self.ms > limit_ms):
            return None
        settled_ago_s = self.since_s - min(self.ms, limit_ms) / 1e3
        return self.ms > limit_ms if settled_ago_s <= _WINDOW_S else None


class KillSwitch:
    """Takes each injector's tick; says why the run must end, once it must. Spend counts from its making.

    `conditions` are `abort_if` as written, `price_per_hour` is of the whole deployment (None: not known).
    """

    def __init__(self, conditions: Mapping[str, str], price_per_hour: float | None) -> None:
        rules = dict(conditions)
        self._spend = _dollars(rules.pop("spend", None))
        if self._spend is not None and not price_per_hour:
            raise UserError(
                "a limit on spend needs a price", where="abort_if.spend", remedy="Give gpus.price_per_hour."
            )
        self._price_per_hour = price_per_hour or 0.0
        self._made_ns = time.time_ns()
        self._paid_before_s = 0.0
        if "errors" in rules and not str(rules["errors"]).lstrip().startswith((">", "<")):
            rules["errors"] = f"> {rules['errors']}"
        self._thresholds = slo.parse(rules, "abort_if").thresholds
        for threshold in self._thresholds:
            can_be_judged = threshold.metric in (*_LATENCIES, "errors") and threshold.statistic != "min"
            if not can_be_judged or threshold.op not in (">", ">="):
                raise UserError(
                    f"{threshold.text!r} can't stop a run", where="abort_if",
                    remedy="Write e.g. errors: 5%, ttft: p99 > 10s, itl: p50 > 1s, e2e: p99 > 60s, or spend: $5.",
                )  # fmt: skip
        self._ended: dict[int, tuple[int, int]] = {}  # injector -> requests that ended, and that failed
        self._totals: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])
        self._recent: deque[tuple[float, dict[str, Any]]] = deque()
        self._latest: dict[int, tuple[float, dict[str, Any]]] = {}
        self._judged_s = -math.inf

    def refuse_unreachable(self, spec: "RunSpec") -> None:
        """Refuse a rule that can never trip in such a run: it protects nobody."""
        measured_s = spec.workload.measured_s()
        whole_s = math.inf if measured_s is None else spec.workload.warmup + measured_s + spec.drain
        for threshold in self._thresholds:
            metric, limit_s = threshold.metric, threshold.limit / 1e3
            least = _LEAST_ENDED if metric == "errors" or threshold.statistic == "mean" else _LEAST_BEYOND
            least = 1 if threshold.statistic == "max" or metric == "itl" else least
            why = ""
            if spec.workload.requests is not None and spec.workload.requests < least:
                why = f"{least} requests are needed to judge it, and the run has {spec.workload.requests}"
            elif metric == "errors":
                if threshold.limit >= 1 and threshold.op == ">":
                    why = "no share is above 100 %"
            elif metric != "e2e" and not spec.streamed:
                why = f"an answer that comes whole has no {metric.upper()}"
            elif spec.timeout is not None and limit_s >= spec.timeout:
                why = f"every request is given up after {spec.timeout:g} s (timeout)"
            elif limit_s >= whole_s:
                why = f"the whole run takes {whole_s:g} s"
            if why:
                raise UserError(
                    f"{threshold.text!r} can never stop this run: {why}", where=f"abort_if.{metric}",
                    remedy="Give a limit that can be reached, or leave it out.",
                )  # fmt: skip

    def load_begins(self, t0_unix_ns: int) -> None:
        """Set the run's time zero: what the deployment cost until now is already spent."""
        self._paid_before_s = max(t0_unix_ns - self._made_ns, 0) / 1e9

    def tick(self, message: dict[str, Any], elapsed_s: float) -> AbortReason | None:
        """One injector's second, ``elapsed_s`` after the run's time zero; why the run must end, or None."""
        statuses = message["statuses"]
        # A user who hung up on an answer is neither good nor bad.
        ended = sum(statuses.values()) - message["abandoned"]
        self._ended[message["injector"]] = ended, ended - statuses.get("ok", 0)
        self._recent.append((elapsed_s, message))
        self._latest[message["injector"]] = elapsed_s, message
        while self._recent[0][0] < elapsed_s - _WINDOW_S:
            self._recent.popleft()
        if self._spend is not None and (self._paid_before_s + elapsed_s) / 3600 * self._price_per_hour >= self._spend:
            return AbortReason("spend", f"spend reached ${self._spend:g} (abort_if)")
        if elapsed_s - self._judged_s < _EVERY_S:
            return None
        self._judged_s = elapsed_s
        for threshold in self._thresholds:
            broken = self._errors(threshold, elapsed_s) if threshold.metric == "errors" else self._latency(threshold)
            if broken:
                return AbortReason(threshold.metric, f"{threshold.text} (abort_if): {broken}")
        return None

    def _errors(self, threshold: slo.Threshold, elapsed_s: float) -> str:
        """Which limit on errors is broken, in words; empty if none is."""
        ended, failed = (sum(column) for column in zip(*self._ended.values(), strict=True))
        self._totals.append((elapsed_s, ended, failed))
        while self._totals[1][0] <= elapsed_s - _WINDOW_S:
            self._totals.popleft()
        if ended >= _LEAST_ENDED and _above(failed / ended, threshold):
            return f"it was {failed / ended:.1%}"
        _, ended_before, failed_before = self._totals[0]
        lately, bad = ended - ended_before, failed - failed_before
        if lately >= _LEAST_ENDED and _surely_more(bad, lately, threshold.limit):
            return f"it was {bad / lately:.1%} in the last {_WINDOW_S} s"
        return ""

    def _latency(self, threshold: slo.Threshold) -> str:
        """Which limit on a latency is broken, in words; empty if none is."""
        waits = list(self._waits(threshold.metric))
        if threshold.statistic == "mean":
            n = _effective(wait.weight for wait in waits)
            mean = sum(wait.weight * wait.ms for wait in waits) / max(sum(wait.weight for wait in waits), 1e-9)
            return f"it was {mean:,.0f} ms" if n >= _LEAST_ENDED and _above(mean, threshold) else ""
        settled = [(wait.weight, late) for wait in waits if (late := wait.beyond(threshold.limit)) is not None]
        total = sum(weight for weight, _ in settled)
        beyond = sum(weight for weight, late in settled if late)
        if not beyond:
            return ""
        n, share = _effective(weight for weight, _ in settled), beyond / total
        allowed = 0.0 if threshold.percentile is None else 1 - threshold.percentile / 100  # None: the largest of all
        if threshold.percentile is not None and (share * n < _LEAST_BEYOND or not _surely_more(share * n, n, allowed)):
            return ""
        what = "gaps" if threshold.metric == "itl" else "requests"
        may = f"; {100 * allowed:.4g} % may" if allowed else ""
        return f"{share:.1%} of the {what} of the last {_WINDOW_S} s took longer{may}"

    def _waits(self, metric: str) -> Iterator[_Wait]:
        now_s = self._recent[-1][0]
        for at_s, message in self._recent:
            ago_s = now_s - at_s
            if metric == "itl":
                yield from (_Wait(1.0, ms, True, ago_s + ms / 1e3) for ms in message["itl_ms"])
                continue
            weight = message["ended_n"] / max(len(message["ended"]), 1)
            for age_ms, ttft_ms, ok in message["ended"]:
                yield _wait(weight, age_ms, ttft_ms if metric == "ttft" else age_ms if ok else None, ago_s)
        for at_s, message in self._latest.values():
            ago_s = now_s - at_s
            weight = message["in_flight"] / max(len(message["open"]), 1)
            for age_ms, ttft_ms, silent_ms in message["open"]:
                if metric != "itl":
                    yield _wait(weight, age_ms, ttft_ms if metric == "ttft" else None, ago_s)
                elif silent_ms is not None:
                    yield _wait(weight, silent_ms, None, ago_s)


def _wait(weight: float, age_ms: float, final_ms: float | None, ago_s: float) -> _Wait:
    is_final = final_ms is not None
    return _Wait(weight, age_ms if final_ms is None else final_ms, is_final, ago_s + age_ms / 1e3)


def _effective(weights: Iterable[float]) -> float:
    """How many equal observations tell as much as these (Kish 1965)."""
    values = list(weights)
    return sum(values) ** 2 / max(sum(weight**2 for weight in values), 1e-12)


def _above(value: float, threshold: slo.Threshold) -> bool:
    return value >= threshold.limit if threshold.op == ">=" else value > threshold.limit


def _surely_more(k: float, n: float, allowed: float) -> bool:
    """Whether k of n can't be chance where a share of ``allowed`` is expected.

    The chance of k or more is at most exp(-n KL(k/n, allowed)): Chernoff's bound of the binomial tail.
    """
    share = k / n if n else 0.0
    if share <= allowed:
        return False
    if allowed <= 0:
        return True
    divergence = share * math.log(share / allowed)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - allowed))
    return n * divergence >= -math.log(_CHANCE)


def _dollars(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        amount = float(str(text).strip().lstrip("$"))
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount > 0):
        raise UserError(f"{text!r} is not an amount above zero", where="abort_if.spend", remedy="Write e.g. $5.")
    return amount
