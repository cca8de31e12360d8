"""A gate's policy: which figures decide, how much worse is acceptable, how many pairs, at what cost.

One YAML file. What concerns the sides and the traffic (`baseline`, `candidate`, `spec`) is kept as written and
checked by `harness.experiments.gate`; judging stored runs needs none of it.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from tailgate.reports.metrics import slo as slo_grammar
from tailgate.reports.verdicts.budget import Budget, BudgetText
from tailgate.reports.verdicts.gate.metrics import GateMetric, gate_metric
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.units import Duration, parse_rate
from tailgate.workloads.common.validation import Strict, explain, read_yaml

# A tail of TTFT, and TPOT as a mean: its percentiles need long runs, since neighbouring requests have nearly the same.
# With these margins an unchanged system passes in over 90 % of cases, with five pairs at a run-to-run spread of 2 %
# and with ten at 4 % (docs/gate.md); at 5 % on the mean it would in two of three.
DEFAULT_METRICS: Final[dict[str, str | None]] = {"ttft.p90": "10%", "tpot.mean": "7%"}
MOST_METRICS: Final = 4
_LEAST_PAIRS: Final = 3
WHOLE: Final = "load"  # the name of the only point, where a policy names none


class LoadPoint(Strict):
    """One load: an open loop's rate, a share of what the baseline carries at the saturated point, or users.

    Users saturate: what is carried is up to the target then.
    """

    rate: float | None = None
    share: float | None = None
    users: int | None = None

    @property
    def saturated(self) -> bool:
        return self.users is not None

    @property
    def text(self) -> str:
        if self.users is not None:
            return f"closed {self.users}"
        return f"{self.share:g}x" if self.share is not None else f"{self.rate:g}/s"


def _point(value: Any) -> Any:
    if isinstance(value, LoadPoint | dict):
        return value
    text = str(value).strip()
    if users := re.fullmatch(r"closed\s+([1-9]\d*)", text):
        return LoadPoint(users=int(users[1]))
    if (share := re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*x", text)) and float(share[1]):
        return LoadPoint(share=float(share[1]))
    try:
        return LoadPoint(rate=parse_rate(text))
    except ValueError:
        raise ValueError(f"{text!r} is not a load (write 8/s, 0.85x of the saturated point, or closed 256)") from None


def _margin_text(value: Any) -> Any:
    """A number is no margin, but the message about it is one for people."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _share(value: Any) -> Any:
    text = str(value).strip().lstrip("+")
    try:
        return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(f"{value!r} is not a share (write 0.1%)") from None


class Policy(Strict):
    """What decides. The YAML's keys, as `tailgate gate init` explains them."""

    name: str = "gate"
    baseline: Any = None
    candidate: Any = None
    spec: Any = None
    points: dict[str, Annotated[LoadPoint, BeforeValidator(_point)]] = {}
    metrics: dict[str, Annotated[str | None, BeforeValidator(_margin_text)]] = DEFAULT_METRICS
    thresholds: dict[str, Any] = {}
    errors: Annotated[float, BeforeValidator(_share), Field(ge=0, lt=1)] = 0.001
    fewer_good: Annotated[float, BeforeValidator(_share), Field(gt=0, lt=1)] = 0.01
    pairs: int = Field(5, ge=_LEAST_PAIRS, le=100)
    extension: int | None = Field(None, ge=4, le=200)
    restart: Literal["each", "block", "never"] = "each"
    repeat_invalid: int = Field(2, ge=0, le=20)
    budget: BudgetText = Budget()
    launch: Duration | None = None  # how long one launch takes, for the estimate
    under_test: tuple[str, ...] = ()
    inconclusive: Literal["fail", "neutral"] = "fail"
    seed: int = Field(1, ge=0)
    window: int | None = Field(None, ge=5)
    history: Path | None = None

    @field_validator("metrics", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return dict.fromkeys(value) if isinstance(value, list) else value

    @field_validator("under_test", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("thresholds")
    @classmethod
    def _parses(cls, value: dict[str, Any]) -> dict[str, Any]:
        slo_grammar.parse(value, "thresholds")
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for key, margin in self.metrics.items():
            gate_metric(key, margin)
        if not self.metrics and not self.thresholds:
            raise ValueError("nothing decides: `metrics` is empty, and there are no `thresholds`")
        if len(self.metrics) > MOST_METRICS:
            raise ValueError(
                f"`metrics` has {len(self.metrics)}: at most {MOST_METRICS} decide, or an unchanged system fails to"
                " pass too often; the others are shown anyway"
            )
        if self.extension is not None and self.extension <= self.pairs:
            raise ValueError(f"`extension: {self.extension}` is the number of pairs in all: more than {self.pairs}")
        if any(point.share is not None for point in self.points.values()) and not self.saturated:
            raise ValueError("a load like 0.85x is a share of a saturated point: add one, e.g. saturated: closed 256")
        return self

    @property
    def extended(self) -> int | None:
        """Pairs in all after the extension: twice as many unless the policy says; None if it says `null`."""
        return self.extension if "extension" in self.model_fields_set else 2 * self.pairs

    @cached_property
    def gate_metrics(self) -> tuple[GateMetric, ...]:
        return tuple(gate_metric(key, margin) for key, margin in self.metrics.items())

    @cached_property
    def limits(self) -> slo_grammar.Slo:
        return slo_grammar.parse(self.thresholds, "thresholds")

    @property
    def saturated(self) -> str | None:
        return next((name for name, point in self.points.items() if point.saturated), None)

    def tests(self) -> list[tuple[str, GateMetric]]:
        """(point, metric) of everything that is compared: latencies where users are served, the rest at saturation.

        Without points all at the one load there is. A policy whose only point is saturated judges latencies there.
        """
        if not self.points:
            return [(WHOLE, metric) for metric in self.gate_metrics]
        calm = [name for name, point in self.points.items() if not point.saturated] or [*self.points]
        saturated = [name for name, point in self.points.items() if point.saturated]
        return [(point, metric) for metric in self.gate_metrics for point in (calm if metric.latency else saturated)]


def parse_policy(data: Any, where: str) -> Policy:
    """Check a policy; one UserError says all that is wrong."""
    if not isinstance(data, dict):
        raise UserError("a policy is a mapping with `metrics` or `thresholds`", where=where)
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise explain(error, where) from error


def load_policy(path: Path) -> Policy:
    return parse_policy(read_yaml(path, missing="`tailgate gate init` writes one."), str(path))
