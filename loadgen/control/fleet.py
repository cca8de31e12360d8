"""The workers of a distributed run as the master knows them: who joined, what each has, how far each has come."""

import time
from dataclasses import dataclass, field
from typing import Any

from loadgen.control.protocol import PROTOCOL, VERSION
from workloads.errors import UserError


@dataclass
class Remote:
    """One worker."""

    id: str  # Locust's name for the connection
    number: int
    name: str
    injectors: int
    version: str
    first: int = 0  # number of its first injector
    prepared: bool = False
    stamps: bool = True
    offset_ns: int = 0  # the master's clock less its own
    error_ns: int = 0
    drift_ns: int = 0  # how far the offset moved through the run
    began: bool = False  # has said something since go
    closed_at_ns: int | None = None  # closed loop: when it asked for its last request, on the master's clock
    users: dict[str, float] = field(default_factory=dict)
    drained: bool = False
    heard_at: float = field(default_factory=time.monotonic)
    missing_since: float | None = None  # monotonic; neither a heartbeat nor a word
    given_up: bool = False

    @property
    def here(self) -> bool:
        """Whether anything is still to be expected of it."""
        return not (self.drained or self.given_up)

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "name": self.name,
            "injectors": list(range(self.first, self.first + self.injectors)),
            "version": self.version,
            "clock_offset_ms": self.offset_ns / 1e6,
            "clock_error_ms": self.error_ns / 1e6,
            "clock_drift_ms": self.drift_ns / 1e6,
            "drained": self.drained,
        }


class Fleet:
    """The workers that were let in, in order of their joining."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.remotes: dict[str, Remote] = {}
        self.turned_away: list[str] = []
        self.sharded = False

    def admit(self, client: str, about: dict[str, Any]) -> Remote | UserError:
        """Let a worker in, or say why not. One that is in stays in."""
        if client in self.remotes:
            return self.remotes[client]
        version, number = str(about.get("version", "unknown")), len(self.remotes) + 1
        if version != VERSION or about.get("protocol") != PROTOCOL:
            return UserError(
                f"this worker is tailgate {version}, the master is tailgate {VERSION}",
                remedy="Install the same version on all machines.",
            )
        if self.sharded or len(self.remotes) == self.expected:
            why = "has begun" if self.sharded else f"has its {self.expected} workers"
            return UserError(f"too late: the run {why}", remedy="Raise --expect-workers on the master.")
        remote = Remote(client, number, about.get("name") or f"worker-{number}", int(about["injectors"]), version)
        self.remotes[client] = remote
        return remote

    @property
    def complete(self) -> bool:
        """Whether all that are expected are there."""
        return len(self.remotes) == self.expected

    @property
    def injectors(self) -> int:
        """Of all workers together."""
        return sum(remote.injectors for remote in self.remotes.values())

    def number_injectors(self) -> None:
        """Give each worker its injectors' numbers; from now on nobody is let in."""
        self.sharded = True
        first = 0
        for remote in self.remotes.values():
            remote.first = first
            first += remote.injectors

    def share_of(self, remote: Remote, requests: int | None) -> int | None:
        """A worker's part of a closed loop's number of requests."""
        if requests is None:
            return None
        each, rest = divmod(requests, len(self.remotes))
        return each + (remote.number <= rest)

    def who_came(self) -> str:
        """For a person: names, or nobody; and who was turned away."""
        came = ", ".join(f"{r.name} (tailgate {r.version})" for r in self.remotes.values()) or "nobody"
        return came + "".join(f"; turned away: {one}" for one in self.turned_away)
