"""What messages between a master and its workers must hold. None is believed unread.

The master's port is open to whoever reaches it, and a worker may have been given the address of another program. `read`
and `read_from_master` take the bytes of a message and give its kind and data, which are as they should be; the texts of
a worker hold nothing that a terminal would obey. What the fields mean is said where they are made.
"""

from typing import Annotated, Any, Final

import msgpack
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tailgate.loadgen.distributed import protocol
from tailgate.loadgen.distributed.seal import Ignored, Reason
from tailgate.workloads.common.formatting import visible

# What msgpack raises for bytes that aren't its own, and for keys that can't be.
_BROKEN: Final = (msgpack.UnpackException, ValueError, TypeError, OverflowError, RecursionError, MemoryError)
_Count = Annotated[int, Field(ge=0)]
_Time = Annotated[int, Field(ge=-(2**62), le=2**62)]  # ns


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Heartbeat(_Shape):
    state: str
    current_cpu_usage: float
    current_memory_usage: float


class _Users(_Shape):
    user_classes_count: dict[str, _Count]
    user_count: _Count


class _Stats(_Users):
    stats: list[dict[str, Any]]
    stats_total: dict[str, Any]
    errors: dict[str, dict[str, Any]]


class _UserError(_Shape):
    msg: str
    traceback: str


class _Logs(_Shape):
    worker_id: str
    logs: list[str]


class _Hello(_Shape):
    version: str
    protocol: int
    name: str
    injectors: int = Field(ge=1, le=256)
    alone_s: float = Field(ge=0)


class _Sent(_Shape):
    sent: _Time


class _ClockOffset(_Shape):
    offset_ns: _Time
    error_ns: _Time


class _Prepared(_ClockOffset):
    stamps: bool


class _Refusal(_Shape):
    what: str
    where: str
    remedy: str


class _Ack(_Shape):
    index: int


class _Spawn(_Shape):
    timestamp: float
    user_classes_count: dict[str, _Count]
    host: str | None
    stop_timeout: float | None
    parsed_options: dict[str, Any]


class _UserCount(_Shape):
    user_count: _Count


class _Welcome(_Shape):
    name: str


class _TurnedAway(_Shape):
    what: str
    remedy: str


class _Pong(_Sent):
    received: _Time
    answered: _Time


class _File(_Shape):
    size: _Count
    digest: str


class _ShardForm(_Shape):
    plan: dict[str, Any]
    job: dict[str, Any]
    files: dict[str, _File]
    first: _Count
    of: _Count


class _Go(_Shape):
    t0_unix_ns: _Time


class _Stored(_Shape):
    name: str
    upto: _Count


class _StopOrder(_Shape):
    why: str
    gone: bool


class _Piece(_Shape):
    name: str
    offset: _Count
    piece: bytes


class _Report(_Shape):
    message: dict[str, Any]


class _ClassTick(_Shape):
    ok: _Count
    failed: _Count
    ttft_ms: list[float]
    itl_ms: list[float]
    e2e_ms: list[float]


class _Tick(_Shape):
    injector: int
    in_flight: int
    statuses: dict[str, int]
    abandoned: int
    tokens: int
    ttft_ms: list[float]
    itl_ms: list[float]
    e2e_ms: list[float]
    ttft_n: int
    itl_n: int
    e2e_n: int
    ended_n: int
    ended: list[Annotated[list[float | bool | None], Field(min_length=3, max_length=3)]]
    open: list[Annotated[list[float | None], Field(min_length=3, max_length=3)]]
    classes: dict[str, _ClassTick] = {}


class _UserCounts(_Shape):
    mean: float
    max: float


class _Closing(_Shape):
    at_unix_ns: _Time
    users: _UserCounts
    early: bool


class _Event(_Shape):
    kind: str
    text: str


class _End(_Shape):
    injector: int
    end_ns: _Time
    failure: str | None
    unstamped: _Count
    reads: _Count
    acks_delayed: bool = False
    waiting_peers: list[str] = []


class _Crashed(_Shape):
    injector: int
    error: str


class _Died(_Shape):
    injector: int
    code: int


class _Warning(_Shape):
    text: str


def _adapters(shapes: dict[str, Any]) -> dict[str, TypeAdapter[Any]]:
    return {kind: TypeAdapter(shape) for kind, shape in shapes.items()}


# By kind: Locust's own that a worker has reason to send, and ours.
_OF_WORKERS: Final = _adapters(
    {
        "client_ready": str, "client_stopped": None, "heartbeat": _Heartbeat, "stats": _Stats, "spawning": None,
        "spawning_complete": _Users, "logs": _Logs, "quit": None, "exception": _UserError,
        protocol.HELLO: _Hello, protocol.PING: _Sent, protocol.PREPARED: _Prepared, protocol.REFUSED: _Refusal,
        protocol.REPORT: _Report, protocol.SPOOL: _Piece, protocol.DRAINED: _ClockOffset,
    }
)  # fmt: skip
# And those of a master.
_OF_MASTER: Final = _adapters(
    {
        "ack": _Ack, "heartbeat": None, "spawn": _Spawn, "spawning_complete": _UserCount, "stop": None, "quit": None,
        "reconnect": None,
        protocol.WELCOME: _Welcome, protocol.TURNED_AWAY: _TurnedAway, protocol.PONG: _Pong,
        protocol.SHARD: _ShardForm, protocol.FILE: _Piece, protocol.GO: _Go, protocol.STORED: _Stored,
        protocol.WIND_DOWN: _StopOrder, protocol.STOP: _StopOrder, protocol.DISMISSED: _Shape,
    }
)  # fmt: skip
# By op: what a report holds, which the harness believes.
_REPORTS: Final[dict[str, type[_Shape]]] = {
    "tick": _Tick, "closing": _Closing, "event": _Event, "unauthorized": _Shape, "end": _End, "crashed": _Crashed,
    "died": _Died, "warning": _Warning,
}  # fmt: skip


def _unpacked(payload: bytes) -> tuple[Any, Any, Any]:
    """Kind, data and sender of a message in Locust's form, unchecked. Raises `Ignored` for bytes that are none."""
    try:
        kind, data, sender = msgpack.loads(payload, strict_map_key=False)
    except _BROKEN as error:
        raise Ignored(Reason.UNREADABLE) from error
    return kind, data, sender


def read(connection: str, payload: bytes) -> tuple[str, Any]:
    """Kind and data of a message as a master may take it. Raises `Ignored` for anything else."""
    kind, data, sender = _unpacked(payload)
    # A message speaks for its own connection only, whatever name it bears.
    if sender != connection or not isinstance(kind, str) or kind not in _OF_WORKERS:
        raise Ignored(Reason.UNREADABLE)
    try:
        data = _without_commands(data)
        _OF_WORKERS[kind].validate_python(data, strict=True)
        if kind == protocol.REPORT:
            _REPORTS[data["message"].get("op")].model_validate(data["message"])
    except (ValidationError, KeyError, TypeError, RecursionError) as error:
        raise Ignored(Reason.UNREADABLE) from error
    return kind, data


def read_from_master(payload: bytes) -> tuple[str, Any]:
    """Kind and data of a message as a worker may take it. Raises `Ignored` for anything else."""
    kind, data, _ = _unpacked(payload)
    if not isinstance(kind, str) or kind not in _OF_MASTER:
        raise Ignored(Reason.UNREADABLE)
    try:
        _OF_MASTER[kind].validate_python(data, strict=True)
    except ValidationError as error:
        raise Ignored(Reason.UNREADABLE) from error
    return kind, data


def _without_commands(value: Any) -> Any:
    match value:
        case str():
            return visible(value)
        case dict():
            return {_without_commands(key): _without_commands(item) for key, item in value.items()}
        case list():
            return [_without_commands(item) for item in value]
    return value
