"""What a person may write under `workload:`, as one pydantic model for YAML, flags and profiles.

`workloads.plan.plan` makes the requests from it. `resolved` fills in the profile and makes file names absolute, so that
the result needs no other file than the trace.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tailgate.workloads.arrivals.spec import ArrivalSpec
from tailgate.workloads.common.units import Duration, Rate
from tailgate.workloads.common.validation import Strict, explain, meant
from tailgate.workloads.config.classes import ClassSpec, RequestSpec, TenantSpec

__all__ = ["ArrivalSpec", "TraceSpec", "WorkloadSpec", "explain"]

TraceFormat = Literal[
    "auto", "azure", "burstgpt", "mooncake", "ragpulse", "servegen", "kv-cache-tester", "openai", "csv", "jsonl",
    "parquet",
]  # fmt: skip
_PLAIN = ("csv", "jsonl", "parquet")
_COLUMNS = ("time", "prompt_tokens", "output_tokens", "session", "think", "class", "tenant", "blocks")


class TraceSpec(Strict):
    """A recorded trace to replay.

    `start` and `duration` cut a slice, `speed` compresses its time, pauses included. `rate` gives the result another
    mean rate: by leaving out sessions (`thin`), by laying shifted copies over each other (`superpose`), or by `speed`;
    `auto` is one of the first two. Stamps on a coarse grid are spread within it unless `spread` is false. `columns`
    names those of a csv, jsonl or parquet file (`prompt_tokens: in`), `time_unit` what its times count. The format
    `auto` is detected when the file is read.
    """

    file: Path
    format: TraceFormat = "auto"
    start: Duration = 0.0
    duration: Duration | None = Field(None, gt=0)
    speed: float = Field(1.0, gt=0, le=1e6)
    skip_bad_rows: bool = False
    rate: Rate | None = None
    rate_by: Literal["auto", "thin", "superpose", "speed"] = "auto"
    spread: bool = True
    columns: dict[str, str] = {}
    time_unit: Literal["s", "ms", "us", "ns", "calendar"] | None = None
    block_tokens: int | None = Field(None, ge=1, le=65536)

    @property
    def has_times(self) -> bool:
        """Whether requests have times; only a file whose columns are named may lack them."""
        return not self.columns or "time" in self.columns

    @model_validator(mode="after")
    def _heeded(self) -> Self:
        """What the format doesn't heed is refused; of `auto`, once the file has told its format."""
        if self.rate is None and self.rate_by != "auto":
            raise ValueError("`rate_by` says how `rate` changes the trace's rate: give a `rate`, or leave it out")
        if self.format == "servegen" and self.rate_by != "auto":
            raise ValueError("`rate_by` is not for servegen: its requests are drawn at the `rate`")
        if self.format == "auto" and not self.columns:
            return self
        if self.format not in ("auto", *_PLAIN):
            given = {"columns": self.columns, "time_unit": self.time_unit, "block_tokens": self.block_tokens}
            ignored = [f"`{name}`" for name, value in given.items() if value]
            if ignored:
                raise ValueError(
                    f"{' and '.join(ignored)} can't be used with {self.format}, which says itself what its values are: "
                    "they describe csv, jsonl and parquet files"
                )
            return self
        self._check_columns()
        return self

    def _check_columns(self) -> None:
        unknown = [key for key in self.columns if key not in _COLUMNS]
        if unknown:
            raise ValueError(f"`columns` has an unknown key {unknown[0]!r} ({meant(unknown[0], list(_COLUMNS))})")
        missing = [key for key in ("prompt_tokens", "output_tokens") if key not in self.columns]
        if missing:
            raise ValueError(f"name the columns of {' and '.join(missing)}, e.g. `columns: {{{missing[0]}: in}}`")
        if "think" in self.columns and not {"time", "session"} <= self.columns.keys():
            raise ValueError("`think` is the pause of requests without a time: name `time` and `session` too")
        if "blocks" in self.columns and self.block_tokens is None:
            raise ValueError("`block_tokens` is missing: how many tokens does a prefix block have?")
        if "blocks" not in self.columns and self.block_tokens is not None:
            raise ValueError("`block_tokens` is the size of the `blocks`, whose column `columns` doesn't name")
        if self.has_times:
            return
        timed = {"time_unit": self.time_unit, "start": self.start, "duration": self.duration}
        ignored = [f"`{name}`" for name, value in (timed | {"speed": self.speed != 1.0}).items() if value]
        if ignored:
            raise ValueError(f"{' and '.join(ignored)} can't be used without times: name the column of `time`")


class UserStage(Strict):
    """A number of users held `for` a while, reached in a straight line over the first `ramp` of it."""

    users: int = Field(ge=0, le=1_000_000)
    for_: Duration = Field(gt=0, alias="for")
    ramp: Duration = 0.0

    @model_validator(mode="after")
    def _ramp_fits(self) -> Self:
        if self.ramp > self.for_:
            raise ValueError("the `ramp` is longer than the stage (`for` includes it)")
        return self


class ContentSpec(Strict):
    """What prompts hold: real text (`corpus`, or a `file` of one's own), `random` tokens, or `replay`.

    With `replay` the requests' own bodies are sent, verbatim, from the trace (a log in OpenAI's shape).
    `content: random` is short for `content: {kind: random}`.
    """

    kind: Literal["corpus", "random", "replay"] = "corpus"
    file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, data: Any) -> Any:
        return {"kind": data} if isinstance(data, str) else data


class WorkloadSpec(RequestSpec):
    """The workload of a run: what is sent, and when."""

    elsewhere: ClassVar = {
        **dict.fromkeys(("rate", "qps", "rps", "request_rate"), "arrivals: {rate: ...}"),
        **dict.fromkeys(("concurrency", "max_concurrency"), "users"),
        **dict.fromkeys(("input_tokens", "input_len"), "prompt_tokens"),
        **dict.fromkeys(("max_tokens", "output_len"), "output_tokens"),
        **dict.fromkeys(("file", "dataset"), "trace: {file: ...}"),
        "num_prompts": "requests",
    }

    profile: str | None = None
    based_on: str | None = None
    trace: TraceSpec | None = None
    arrivals: ArrivalSpec | None = None
    locustfile: Path | None = None
    tags: tuple[str, ...] = ()
    exclude_tags: tuple[str, ...] = ()
    users: int | None = Field(None, ge=1, le=1_000_000)
    stages: tuple[UserStage, ...] = ()
    requests: int | None = Field(None, ge=1, le=1_000_000_000)
    duration: Duration | None = Field(None, gt=0)
    warmup: Duration = 0.0
    classes: dict[str, ClassSpec] = {}
    tenants: dict[str, TenantSpec] = {}
    block_tokens: int = Field(64, ge=1, le=65536)
    max_context: int | None = Field(None, ge=2)
    over_context: Literal["error", "clip", "scale", "drop"] = "error"
    length_scale: float = Field(1.0, gt=0, le=100)
    content: ContentSpec = ContentSpec()

    @property
    def loop(self) -> Literal["open", "closed"]:
        """Open (arrivals by the clock) or closed (users wait for answers); of a resolved spec."""
        return "closed" if self.users is not None or self.stages else "open"

    @property
    def most_users(self) -> int:
        """The largest number of users at one time; 0 in an open loop."""
        return max([self.users or 0, *(stage.users for stage in self.stages)])

    def resolved(self, folder: Path) -> "WorkloadSpec":
        """The same with its profile filled in and absolute file names; `folder` is where the spec stands."""
        from tailgate.workloads.config.profiles import fill_in

        spec = self
        if self.profile is not None and self.profile.endswith((".yaml", ".yml")):
            spec = self.model_copy(update={"profile": str(folder / self.profile)})
        spec = fill_in(spec)
        update: dict[str, Any] = {}
        if spec.trace is not None:
            trace = spec.trace.model_copy(update={"file": (folder / spec.trace.file).resolve()})
            if trace.rate is not None and not trace.has_times and spec.arrivals is None and spec.loop == "open":
                # Lengths alone have no rate that could be changed: they come at random at the one asked for.
                update["arrivals"] = ArrivalSpec(rate=trace.rate)
                trace = trace.model_copy(update={"rate": None, "rate_by": "auto"})
            update["trace"] = trace
        if spec.locustfile is not None:
            update["locustfile"] = (folder / spec.locustfile).resolve()
        if spec.content.file is not None:
            update["content"] = spec.content.model_copy(update={"file": (folder / spec.content.file).resolve()})
        return spec.model_copy(update=update)

    def class_specs(self) -> dict[str, ClassSpec]:
        """The classes, with what they leave out taken from the workload; without classes, one `default`."""
        own = {name: getattr(self, name) for name in RequestSpec.model_fields}
        if not self.classes:
            return {"default": ClassSpec(**own)}
        common = {name: value for name, value in own.items() if name in self.model_fields_set}
        return {
            name: class_spec.model_copy(
                update={k: v for k, v in common.items() if k not in class_spec.model_fields_set}
            )
            for name, class_spec in self.classes.items()
        }

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.loop == "closed" and self.arrivals is not None:
            raise ValueError("`users` (closed loop) and `arrivals` (open loop) exclude each other: keep one")
        if self.users is not None and self.stages:
            raise ValueError("`users` and `stages` exclude each other: a stage has its own users")
        if self.stages and not self.most_users:
            raise ValueError("none of the `stages` has users")
        if self.trace is not None and self.profile is not None:
            raise ValueError("`trace` and `profile` exclude each other: keep one")
        if self.trace is not None:
            self._check_trace()
        if self.trace is not None and self.classes:
            raise ValueError("`trace` and `classes` exclude each other: a trace has its own classes")
        if self.loop == "closed" and self.over_context == "drop":
            raise ValueError("a closed loop's sequence is endless: `over_context` can clip or scale, not drop")
        if (self.trace is not None or self.loop == "closed") and any(tenant.surge for tenant in self.tenants.values()):
            raise ValueError("a tenant's `surge` multiplies arrivals: a trace has its own, a closed loop has none")
        if self.content.kind != "corpus" and self.content.file is not None:
            raise ValueError("`content.file` is for `kind: corpus`")
        if self.content.kind == "replay" and (
            self.trace is None or self.trace.columns or self.trace.format not in ("auto", "openai")
        ):
            raise ValueError("`content: {kind: replay}` needs a `trace` in OpenAI's shape: the bodies in it are sent")
        if self.content.kind == "replay" and (self.over_context in ("clip", "scale") or self.length_scale != 1.0):
            raise ValueError("replayed bodies are sent as they are: `over_context` can drop, not clip or scale")
        if self.locustfile is not None:
            self._check_own_code()
        elif self.tags or self.exclude_tags:
            raise ValueError("`tags` and `exclude_tags` choose tasks of a `locustfile`, which is missing")
        elif self.profile is None and all(class_spec.profile is None for class_spec in self.classes.values()):
            self._check_complete()
        return self

    def _check_trace(self) -> None:
        for name in ("prompt_tokens", "output_tokens"):
            if getattr(self, name) is not None:
                raise ValueError(f"`trace` and `{name}` exclude each other: its requests have lengths (`length_scale`)")
        for name in ("correlation", "sessions", "prefix", "priority"):
            if getattr(self, name):
                raise ValueError(f"`trace` and `{name}` exclude each other: a trace's requests are sent as they are")
        if self.trace is not None and self.trace.rate is not None and self.arrivals is not None:
            raise ValueError("`trace.rate` and `arrivals` exclude each other: `arrivals.rate` is the rate then")
        if self.arrivals is not None and self.arrivals.mean_rate() is None:
            raise ValueError("`arrivals.rate` is missing: `arrivals` that replace the trace's own times need one")

    def _check_own_code(self) -> None:
        others = ("trace", "profile", "arrivals", "prompt_tokens", "output_tokens", "sessions", "prefix", "classes")
        conflicting = [name for name in others if getattr(self, name)]
        if conflicting:
            raise ValueError(
                f"`locustfile` and `{conflicting[0]}` exclude each other: a locustfile's code makes the requests"
            )
        if self.loop == "open":
            raise ValueError("a `locustfile` needs `users` or `stages`: how many users run its tasks?")
        if self.requests is None and self.duration is None and not self.stages:
            raise ValueError("`duration` or `requests` is missing: when does the run end?")

    def _check_complete(self) -> None:
        if self.trace is None:
            for name, class_spec in self.class_specs().items():
                missing = [part for part in ("prompt_tokens", "output_tokens") if getattr(class_spec, part) is None]
                if missing:
                    suffix = f" of class {name!r}" if self.classes else ""
                    raise ValueError(f"{' and '.join(missing)}{suffix} missing: give lengths, a `profile` or a `trace`")
            if self.loop == "open":
                self._check_rates()
        if self.trace is None and self.requests is None and self.duration is None and not self._staged_s():
            raise ValueError("`duration` or `requests` is missing: when does the run end?")

    def _check_rates(self) -> None:
        shared = any(class_spec.arrivals is None for class_spec in self.class_specs().values())
        own = [class_spec.arrivals for class_spec in self.classes.values() if class_spec.arrivals is not None]
        if shared and (self.arrivals is None or self.arrivals.mean_rate() is None):
            raise ValueError("`arrivals.rate` is missing: how many requests per second? (or `users` for a closed loop)")
        if any(arrivals.mean_rate() is None for arrivals in own):
            raise ValueError("a class's own `arrivals` need a `rate`")
        if self.arrivals is not None and not shared:
            raise ValueError("every class has `arrivals` of its own: the workload's would change nothing")

    def _staged_s(self) -> float:
        if self.stages:
            return float(sum(stage.for_ for stage in self.stages))
        return self.arrivals.stages_s() if self.arrivals is not None else 0.0

    def measured_s(self) -> float | None:
        """Seconds of the measured part: `duration`, or that of the stages; None when a number of requests ends it."""
        return self.duration if self.duration is not None else (self._staged_s() or None)
