"""The spec of a run: one pydantic model, whether it comes from a YAML file, from flags, or from both."""

import copy
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from tailgate.harness.config.hints import ELSEWHERE
from tailgate.harness.config.masking import (
    learn_secrets,
    masked_settings,
    masked_text,
    masked_variables,
    program_of,
    without_credentials,
)
from tailgate.loadgen.injector.http.endpoint import Trust
from tailgate.loadgen.job import LIMITS, meaning_changed
from tailgate.loadgen.redact import MASK
from tailgate.reports.metrics import slo as slo_grammar
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.formatting import visible
from tailgate.workloads.common.units import Duration
from tailgate.workloads.common.validation import Strict, explain, read_yaml
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.sampling.distribution_grammar import Length

# Fields of a request's body that are not `extra`, and what says them instead.
_WRITTEN: Final = {
    "model": "use target.model (--model)",
    "prompt": "use workload.content and workload.prompt_tokens (--content, --prompt-tokens)",
    "messages": "use target.endpoint: chat with workload.content (--endpoint, --content)",
    "stream": "use streamed: false (--no-stream)",
    "stream_options": "usage is always asked for; use streamed: false (--no-stream) to have no stream",
    "max_tokens": "use workload.output_tokens (--output-tokens)",
    "max_completion_tokens": "use workload.output_tokens (--output-tokens)",
    "min_tokens": "use workload.output_tokens (--output-tokens), or output: natural (--natural-output)",
    "ignore_eos": "use output: forced or natural (--natural-output)",
}
_LONGEST_NAME: Final = 128  # bytes; a folder's name has 255 at most, and a time and a number join it


class AuthSpec(Strict):
    """Where the API key comes from: an environment variable, or a command that is run again when it expires."""

    env: str | None = None
    command: str | None = None
    refresh: Duration | None = Field(None, gt=0)
    header: str = "Authorization"
    scheme: str = "Bearer"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.env is None) == (self.command is None):
            raise ValueError("give either `env` (a variable's name) or `command` (what prints the key)")
        if self.env is not None and self.refresh is not None:
            raise ValueError("`refresh` belongs to `command`: a variable doesn't change during a run")
        return self


class TlsSpec(Strict):
    """How the target's certificate is verified, and which certificate we present."""

    ca: Path | None = None
    insecure: bool = False
    cert: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _key_of_something(self) -> Self:
        if self.key is not None and self.cert is None:
            raise ValueError("`key` (--key) is the key of a client certificate: name that too, `cert` (--cert)")
        return self

    def resolved(self, folder: Path) -> Self:
        """A copy with absolute file names; `folder` is where the spec is."""
        files = {name: getattr(self, name) for name in ("ca", "cert", "key")}
        return self.model_copy(update={name: (folder / file).resolve() for name, file in files.items() if file})


class TargetSpec(Strict):
    """The deployment under test."""

    kind: Literal["url", "vllm", "command", "sim"] = "url"
    url: str | None = None
    urls: tuple[str, ...] = ()
    sim: str | None = None
    clock: Literal["real", "virtual"] = "real"  # sim: virtual simulates the run without HTTP and without waiting
    command: str | None = None
    stop: str | None = None  # command: what ends it, for one that goes on without the command (docker run -d, helm)
    ready: str | None = None  # command: the URL that answers 200 once it can serve (default: /health)
    ready_timeout: Duration = Field(600.0, gt=0)
    python: str | None = None  # vllm: the interpreter it is installed for
    model: str | None = None
    args: dict[str, Any] = {}
    env: dict[str, str] = {}
    endpoint: Literal["completions", "chat"] = "completions"
    prompt: Literal["auto", "ids", "text"] = "auto"  # completions: how prompts are sent
    fields: Literal["auto", "vllm", "openai", "plain"] = "auto"  # which fields a request has: harness.run.request_form
    output_limit: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"  # what bounds an answer
    headers: dict[str, str] = {}
    auth: AuthSpec | None = None
    tls: TlsSpec = TlsSpec()
    balance: Literal["round-robin", "least-in-flight"] = "round-robin"
    delayed_acks: Literal["loopback", "always", "never"] = "loopback"  # to which servers: docs/injector.md

    @model_validator(mode="before")
    @classmethod
    def _kind_follows(cls, data: Any) -> Any:
        if isinstance(data, dict) and "kind" not in data and "sim" in data:
            return {**data, "kind": "sim"}
        return data

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needs = {"url": self.all_urls, "sim": self.sim, "command": self.command, "vllm": self.model}
        if not needs[self.kind]:
            raise ValueError(
                {"url": "`url` is missing: where does the server listen?"}.get(
                    self.kind, f"`{ {'sim': 'sim', 'command': 'command', 'vllm': 'model'}.get(self.kind) }` is missing"
                )
            )
        if self.stop is not None and self.kind != "command":
            raise ValueError("`stop` belongs to `kind: command`: no other kind is started by a command of yours")
        others = {"url": bool(self.all_urls), "sim": self.sim is not None, "command": self.command is not None}
        # A command says where it serves; a sim or a vLLM of ours has its own address.
        fits = {"url": {"url"}, "sim": {"sim"}, "command": {"command", "url"}, "vllm": set[str]()}[self.kind]
        for name, given in others.items():
            if given and name not in fits:
                raise ValueError(f"`{name}` doesn't belong to `kind: {self.kind}`: keep one of them")
        if self.args and self.kind in ("url", "command"):
            raise ValueError(f"`args` are for what is started with them (vllm, sim), not for `kind: {self.kind}`")
        if self.prompt != "auto" and self.endpoint == "chat":
            raise ValueError("`prompt` belongs to `endpoint: completions`: a chat's prompt is always text")
        return self

    @property
    def all_urls(self) -> tuple[str, ...]:
        given = (*((self.url,) if self.url else ()), *self.urls)
        return tuple(url.rstrip("/").removesuffix("/v1") for url in given)


class GpuSpec(Strict):
    """What the deployment runs on, for cost and energy."""

    type: str | None = None
    count: int = Field(1, ge=1)
    price_per_hour: float | None = Field(None, ge=0)  # of one GPU; the catalogue's where it is not given
    price_source: str | None = None
    price_ratio: float | None = Field(None, gt=0)  # output token's price over input token's
    cached_price_ratio: float | None = Field(None, ge=0)
    demand_rps: float | None = Field(None, ge=0)  # what the deployment is for, against
    capacity_rps: float | None = Field(None, gt=0)  # what it can carry: the idle share
    usd_per_kwh: float | None = Field(None, ge=0)
    gco2_per_kwh: float | None = Field(None, ge=0)


class TelemetrySpec(Strict):
    """What is watched beside the traffic."""

    # YAML reads `off` as false
    server: Annotated[Literal["auto", "none"], BeforeValidator(lambda v: "none" if v is False else v)] = "auto"
    server_interval: Duration = Field(1.0, gt=0)
    gpu: str = "auto"
    host: bool = True

    @field_validator("gpu")
    @classmethod
    def _names_a_source(cls, value: str) -> str:
        kind, colon, detail = value.partition(":")
        fits = (kind in ("none", "auto") and not colon) or (kind == "nvml" and (detail or not colon))
        if not fits and not (kind == "dcgm" and detail.startswith("http")):
            raise ValueError(
                f"{value!r} is not a source of GPU metrics; write none, auto, nvml, nvml:0,1 or dcgm:http://..."
            )
        return value


class AbandonSpec(Strict):
    """Users who hang up: what share of them, and after how many seconds from when they asked."""

    share: float = Field(1.0, gt=0, le=1)
    patience: Length

    @field_validator("share", mode="before")
    @classmethod
    def _share(cls, value: Any) -> Any:
        return float(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else value


class WorkersSpec(Strict):
    """Other machines that send the load: this one controls the run and waits for `expect` of them at `bind`."""

    expect: int = Field(ge=1, le=1000)
    bind: str = "127.0.0.1:5557"
    wait: Duration = Field(60.0, gt=0)
    token_env: str | None = None  # the variable that holds what master and workers prove themselves with


class RunSpec(Strict):
    """A run, from target to SLO."""

    elsewhere = ELSEWHERE

    name: str = "run"
    target: TargetSpec
    workload: WorkloadSpec
    gpus: GpuSpec = GpuSpec()
    slo: dict[str, str] = {}
    seed: int = Field(0, ge=0, lt=2**63)
    timeout: Duration | None = Field(None, gt=0)
    drain: Duration = Field(60.0, ge=0)
    abandon: AbandonSpec | None = None
    streamed: bool = True
    output: Literal["forced", "natural"] = "forced"
    extra: dict[str, Any] = {}
    injectors: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"  # auto: `harness.run.expectation`
    workers: WorkersSpec | None = None
    ui: str | None = None  # address of Locust's web UI
    cache: Literal["cold", "isolated", "warm", "as-is"] | None = None
    # Requests of our own until the server's pace is steady; auto: `harness.run.prepare.warms_up`
    settle: Literal["auto", "always", "none"] = "auto"
    isolation: Literal["exclusive", "shared"] | None = None
    abort_if: dict[str, str] = {}
    telemetry: TelemetrySpec = TelemetrySpec()

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value or "/" in value or value.startswith("."):
            raise ValueError("a name becomes part of a folder's name: no slash, no leading dot, not empty")
        if visible(value) != value or "\n" in value or "\t" in value:
            raise ValueError("a name becomes part of a folder's name: no control character, such as a line break")
        if (size := len(value.encode())) > _LONGEST_NAME:
            raise ValueError(f"a name becomes part of a folder's name: at most {_LONGEST_NAME} bytes, this has {size}")
        return value

    @model_validator(mode="after")
    def _extra_is_extra(self) -> Self:
        for name, instead in _WRITTEN.items():  # the code of a locustfile may leave the limits open
            if name in self.extra and (name not in LIMITS or self.workload.locustfile is None):
                raise ValueError(f"`extra.{name}`: this field of a request is written by the run itself; {instead}")
        if why := meaning_changed(self.extra):
            raise ValueError(f"`extra`: {why}; leave it out (for several answers, send several requests)")
        return self

    @field_validator("slo")
    @classmethod
    def _slo_parses(cls, value: dict[str, str]) -> dict[str, str]:
        slo_grammar.parse(value)
        return value

    @model_validator(mode="after")
    def _class_slos_parse(self) -> Self:
        for name, kind in self.workload.classes.items():
            slo_grammar.parse(kind.slo, f"workload.classes.{name}.slo")
        return self

    @property
    def injector_count(self) -> int:
        """Injector processes on this machine; of `auto` the one that there is until the plan is known."""
        return 1 if self.injectors == "auto" else self.injectors

    def public(self) -> dict[str, Any]:
        """The spec as the manifest stores it: without anything that may be a secret."""
        return masked(self.model_dump(mode="json", exclude_none=True, exclude_defaults=True))


def masked(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec as it is written, without what may be a secret.

    Values of headers, whatever is named like a secret (`harness.config.masking`), and user and password of a URL.
    """
    data = copy.deepcopy(in_full(spec))
    target = data.get("target") or {}
    if headers := target.get("headers"):
        target["headers"] = dict.fromkeys(headers, MASK)
    if variables := target.get("env"):
        target["env"] = masked_variables(variables)
    if arguments := target.get("args"):
        target["args"] = masked_settings(arguments)
    for key in ("command", "stop", "ready", "url"):
        if key in target:
            target[key] = masked_text(target[key])
    if "urls" in target:
        target["urls"] = [without_credentials(url) for url in target["urls"]]
    if "command" in (target.get("auth") or {}):
        target["auth"]["command"] = program_of(target["auth"]["command"])
    if "extra" in data:
        data["extra"] = masked_settings(data["extra"])
    if "gpu" in (data.get("telemetry") or {}):
        data["telemetry"]["gpu"] = without_credentials(data["telemetry"]["gpu"])
    return data


def load(path: Path) -> dict[str, Any]:
    """The YAML of a spec, not yet checked."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError("a spec is a mapping with `target` and `workload`", where=str(path))
    return in_full(data)


def in_full(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec whose short forms are written out: `target: URL` (or `sim:PRESET`), and `slo` as a list of lines."""
    full = dict(spec)
    if isinstance(target := full.get("target"), str):
        engine = target.removeprefix("sim:")
        full["target"] = {"url": target} if engine == target else {"kind": "sim", "sim": engine}
    if isinstance(lines := full.get("slo"), list):
        objectives: dict[str, list[str]] = {}
        for line in lines:
            # YAML reads an unquoted `- ttft: p99 < 800ms` as a mapping.
            for figure, limit in line.items() if isinstance(line, dict) else [slo_grammar.split_line(str(line))]:
                objectives.setdefault(figure, []).append(str(limit))
        full["slo"] = {figure: " and ".join(limits) for figure, limits in objectives.items()}
    return full


def merge(spec: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """A spec in which the flags have replaced what they name, key by key."""
    merged = dict(spec)
    for key, value in flags.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def build(data: dict[str, Any], where: str, folder: Path) -> RunSpec:
    """Check a spec; file names in it are relative to ``folder``."""
    data = in_full(data)
    learn_secrets(data)  # before an error can show them
    try:
        spec = RunSpec.model_validate(data)
    except ValidationError as error:
        raise explain(error, where) from error
    target = spec.target.model_copy(update={"tls": spec.target.tls.resolved(folder)})
    return spec.model_copy(update={"workload": spec.workload.resolved(folder), "target": target})


def trust_of(spec: RunSpec) -> Trust:
    """How the target is verified, as the injector takes it."""
    tls = spec.target.tls
    return Trust(
        ca=str(tls.ca) if tls.ca else None,
        insecure=tls.insecure,
        client_cert=str(tls.cert) if tls.cert else None,
        client_key=str(tls.key) if tls.key else None,
    )
