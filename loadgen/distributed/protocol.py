"""The messages between a master and its workers, over Locust's own connection (ZeroMQ, msgpack).

    worker                        master
    hello (until welcomed)    ->
                              <-  welcome, or turned-away (another version, too many, too late)
    ping                      ->  pong: the worker works out its clock's offset
                              <-  shard, file ... (pieces of the plan and of the prompts' content)
    prepared, or refused      ->
                              <-  go (the start time, on the master's clock)
    report (of the injectors), spool (bytes of record batches)  ->
                              <-  stored (what the master holds), wind-down, stop
    drained (until dismissed) ->
                              <-  dismissed

With a token a worker begins with a greeting, and all messages are sealed (`seal`).

Every message can be lost with a connection: what matters is repeated until answered, and both sides take repetitions.
Locust's own message types are matched before these and a collision is swallowed silently, hence the prefix.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

VERSION: Final = version("tailgate")
# Changes when a worker of before could not work with a master of now.
PROTOCOL: Final = 5

DEFAULT_PORT: Final = 5557

HELLO: Final = "tailgate.hello"
WELCOME: Final = "tailgate.welcome"
TURNED_AWAY: Final = "tailgate.turned-away"
PING: Final = "tailgate.ping"
PONG: Final = "tailgate.pong"
SHARD: Final = "tailgate.shard"
FILE: Final = "tailgate.file"
PREPARED: Final = "tailgate.prepared"
REFUSED: Final = "tailgate.refused"
GO: Final = "tailgate.go"
REPORT: Final = "tailgate.report"
SPOOL: Final = "tailgate.spool"
STORED: Final = "tailgate.stored"
WIND_DOWN: Final = "tailgate.wind-down"
STOP: Final = "tailgate.stop"
DRAINED: Final = "tailgate.drained"
DISMISSED: Final = "tailgate.dismissed"

TO_MASTER: Final = (HELLO, PING, PREPARED, REFUSED, REPORT, SPOOL, DRAINED)
TO_WORKER: Final = (WELCOME, TURNED_AWAY, PONG, SHARD, FILE, GO, STORED, WIND_DOWN, STOP, DISMISSED)

# Pieces of files: small enough that handling one does not hold up a heartbeat.
PIECE_BYTES: Final = 256 * 1024


def trace_of(job: dict[str, Any]) -> str | None:
    """The trace from which a closed loop's endless plan is continued."""
    trace = job["extend_plan"] and job["extend_plan"]["workload"].get("trace")
    return None if trace is None else str(trace["file"])


def trace_file(job: dict[str, Any]) -> str:
    """The trace's name on a worker. Its suffix tells the format."""
    return "trace" + "".join(Path(trace_of(job) or "").suffixes[-2:])


def bodies_file(job: dict[str, Any]) -> str:
    """The name of the log of request bodies on a worker. Its suffix tells how it is compressed."""
    return f"bodies{Path(job['bodies']).suffix}"
