"""What a person may write under `workload:`: one pydantic model for YAML, flags and profiles.

It says what is asked for; `workloads.plan` makes the rows. Files are relative to the spec's own folder
until `resolved` is called.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from workloads.arrivals.spec import ArrivalSpec
from workloads.lengths import Length
from workloads.units import Duration
from workloads.validation import Strict, explain

__all__ = ["ArrivalSpec", "TraceSpec", "WorkloadSpec", "explain"]


class TraceSpec(Strict):
    """A recorded trace to replay."""

    file: Path
    format: Literal["azure"]
    start: Duration = 0.0
    duration: Duration | None = Field(None, gt=0)
    speed: float = Field(1.0, gt=0, le=1e6)
    skip_bad_rows: bool = False


class WorkloadSpec(Strict):
    """The workload of a run: what is sent, and when."""

    profile: str | None = None
    trace: TraceSpec | None = None
    prompt_tokens: Length | None = None
    output_tokens: Length | None = None
    arrivals: ArrivalSpec | None = None
    users: int | None = Field(None, ge=1, le=1_000_000)
    requests: int | None = Field(None, ge=1, le=1_000_000_000)
    duration: Duration | None = Field(None, gt=0)
    warmup: Duration = 0.0
    max_context: int | None = Field(None, ge=2)
    over_context: Literal["error", "clip", "scale", "drop"] = "error"
    length_scale: float = Field(1.0, gt=0, le=100)

    @property
    def loop(self) -> Literal["open", "closed"]:
        """Open (arrivals by the clock) or closed (users wait for answers)."""
        return "closed" if self.users is not None else "open"

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.users is not None and self.arrivals is not None:
            raise ValueError("`users` (closed loop) and `arrivals` (open loop) exclude each other: keep one")
        if self.trace is not None and self.profile is not None:
            raise ValueError("`trace` and `profile` exclude each other: keep one")
        if self.profile is None and self.trace is None:
            missing = [name for name in ("prompt_tokens", "output_tokens") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"{' and '.join(missing)} missing: give lengths, or a `profile` or a `trace`")
            if self.loop == "open" and (self.arrivals is None or self.arrivals.mean_rate() is None):
                raise ValueError(
                    "`arrivals.rate` is missing: how many requests per second? (or `users` for a closed loop)"
                )
            if self.requests is None and self.duration is None:
                raise ValueError("`duration` or `requests` is missing: when does the run end?")
        return self

    def resolved(self, folder: Path) -> "WorkloadSpec":
        """The same with absolute file names; `folder` is where the spec stands."""
        if self.trace is None or self.trace.file.is_absolute():
            return self
        trace = self.trace.model_copy(update={"file": (folder / self.trace.file).resolve()})
        return self.model_copy(update={"trace": trace})
