"""`manifest.json`: what was run, on what, with which clock marks and how far it came.

`harness.run.execute` writes it (first at the start, then at each change of `state`); everything in `reports`
reads it. The figures are elsewhere: `reports.summary.summary`.
"""

import hashlib
from pathlib import Path
from typing import Any, Final, Literal

import pydantic

from tailgate.loadgen.redact import SECRETS
from tailgate.reports.rundir.json_files import read_json, write_atomic
from tailgate.workloads.common.errors import UserError

SCHEMA: Final = "tailgate.manifest/1"
FILE_NAME: Final = "manifest.json"

# Every collected run has these ...
_ALWAYS: Final = ("plan.parquet", "requests.parquet", "arrivals.parquet", "client.parquet")
# ... and everything that was measured or happened is in one of these; documents are made from it.
MEASURED: Final = (*_ALWAYS, "server.parquet", "gpu.parquet", "host.parquet", "events.jsonl")

RunState = Literal["running", "complete", "interrupted", "failed", "aborted"]


class TargetRecord(pydantic.BaseModel):
    """The deployment that was measured; `fingerprint` is all that it reports about itself."""

    model_config = pydantic.ConfigDict(extra="allow")

    kind: str
    urls: list[str] = []
    model: str = ""
    endpoint: str = ""
    simulated: bool = False
    server: str = ""
    version: str = ""
    # The form of requests: fields (vllm | openai | plain), prompt (ids | text | chat), limit, omitted fields.
    requests: dict[str, Any] = {}
    proxy: dict[str, str] = {}  # by URL, where the environment names a proxy: through which, or why past it
    fingerprint: dict[str, Any] = {}
    instance: dict[str, str] = {}  # which container it was, or ran in
    # What its log and metrics say of GPU memory: model_gib, kv_cache_gib, kv_blocks, ...
    memory: dict[str, float] = {}
    # Of a deployment that we started: how it was started, became ready, and ended; empty for others. Keys are those
    # of `harness.targets.base.Life`.
    life: dict[str, Any] = {}


class Manifest(pydantic.BaseModel):
    """One run. All `*_ns` fields but `t0_unix_ns` count from the run's start (`t0_unix_ns`).

    Fields that a newer writer added are kept as they are; `Manifest.load` refuses only a newer major schema.
    """

    model_config = pydantic.ConfigDict(extra="allow")

    schema_: str = pydantic.Field(default=SCHEMA, alias="schema")
    run: str
    name: str = ""
    # `running` in a file that nobody writes any more means: killed.
    state: RunState = "running"
    started_at: str = ""  # ISO 8601, UTC
    t0_unix_ns: int = 0
    tailgate_version: str = ""
    command_line: list[str] = []  # secrets already masked
    spec: dict[str, Any] = {}  # resolved, secrets already masked
    seed: int = 0
    plan_hash: str = ""
    workload_hash: str = ""
    loop: Literal["open", "closed"] = "open"
    users: dict[str, float] = {}  # closed loop: time-weighted mean and largest number of users in the measure phase

    warmup_ns: int = 0
    measure_start_ns: int = 0
    measure_end_ns: int = 0  # the planned end of the measure phase
    drain_end_ns: int | None = None  # latest end of the drain
    ended_ns: int | None = None  # when the load really stopped; null while running

    target: TargetRecord = TargetRecord(kind="url")
    host: dict[str, Any] = {}
    versions: dict[str, str] = {}
    injectors: int = 1
    workers: list[dict[str, Any]] = []  # of a distributed run: name, injectors, version, clock offset and its error
    # mixed: the kernel's, but for too many reads; virtual: nothing was read, see `clock`
    stamp: Literal["kernel", "user", "mixed", "virtual"] = "kernel"
    clock: Literal["real", "virtual"] = "real"  # virtual: a simulation, in which no load generator took part
    # What the machine was expected to measure to before the load: `harness.host.expected_error.ExpectedError`.
    expected_error: dict[str, Any] = {}
    acks_delayed: bool | None = None  # whether tokens were acknowledged several at a time, of any server
    injector_nice: int | None = None  # niceness of the injectors, the worst of them: below 0 they go before others
    # `gpu`: how GPUs were sampled; `settle`: the warm-up that waited for a steady pace; `several_behind`: the URLs
    # behind which more than one server answered before the load.
    telemetry: dict[str, Any] = {}
    content: dict[str, Any] = {}  # what prompts were made of: kind, digest and tokens of the table
    notices: list[str] = []
    insecure_tls: bool = False
    isolation: str = "shared"
    cache: str = "as-is"

    state_reason: str = ""  # why it was interrupted, failed or aborted
    aborted_by: str = ""  # the rule of `abort_if` that stopped it: errors, ttft, itl, e2e or spend
    # Who failed, if the state is `failed`: a target that dies is a result of a gate, a client that does is not.
    failed_side: Literal["", "target", "client"] = ""
    recovered: bool = False  # finalised by `tailgate report` after the run was killed
    pid: int | None = None  # the process that owns the run while it is `running`
    duplicates: int | None = None  # records of a request that was reported before
    unclosed: list[int] = []  # injectors that did not end their records: killed, or never heard of again
    checksums: dict[str, str] = {}  # file name -> sha256, of the files that were measured
    summary_checksum: str = ""  # sha256 of the last summary.json that was made from them

    @classmethod
    def load(cls, run_dir: Path | str) -> "Manifest":
        """Read `run_dir/manifest.json`.

        Raises:
            UserError: no such file, not JSON, of a newer major schema, or a field of the wrong type.
        """
        path = Path(run_dir) / FILE_NAME
        if not path.exists():
            raise UserError(
                "not a run directory: it has no manifest.json", where=str(run_dir), remedy="Name a run's folder."
            )
        try:
            return cls.model_validate(read_json(path, SCHEMA))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise UserError(first["msg"], where=f"{path}: {key}") from error

    def save(self, run_dir: Path | str) -> None:
        """Write `run_dir/manifest.json` in one step: a reader sees the old or the new file, never half."""
        shown = type(self).model_validate(SECRETS.masked(self.model_dump(by_alias=True, mode="json")))
        text = shown.model_dump_json(by_alias=True, indent=1) + "\n"
        write_atomic(Path(run_dir) / FILE_NAME, text.encode())


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(run_dir: Path) -> dict[str, str]:
    """SHA-256 of every measured file that is there, by name."""
    return {name: sha256_of(run_dir / name) for name in MEASURED if (run_dir / name).exists()}


def altered(run_dir: Path, manifest: Manifest) -> dict[str, str]:
    """How files are not what the run wrote, by name: `missing` or `changed`."""
    how = {name: "missing" for name in _ALWAYS if not (run_dir / name).is_file()}
    for name, checksum in manifest.checksums.items():
        path = run_dir / name
        if not path.is_file():
            how[name] = "missing"
        elif sha256_of(path) != checksum:
            how[name] = "changed"
    return how


def unsummed(run_dir: Path, manifest: Manifest) -> list[str]:
    """Measured files that are there and of which the manifest keeps no checksum."""
    return [name for name in MEASURED if name not in manifest.checksums and (run_dir / name).exists()]
