"""The plain case: an open loop of requests that are known beforehand, on one replica. Also the C kernel's reference."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tailgate.harness.engine.config import Resolved
from tailgate.harness.engine.virtual.fleet import Fleet, FleetSettings
from tailgate.harness.engine.virtual.outcome import ServedRequests
from tailgate.harness.engine.virtual.replica import VirtualSequence
from tailgate.workloads.common.arrays import Floats, Ints


@dataclass(frozen=True)
class OpenRequests:
    """Requests in the order of arrival; arrays of one shape (n,).

    `patience_s` is how long each one's user waits from its arrival (inf: to the end); `chains` are the hashes of each
    one's blocks, prompt and output (none: nothing is shared).
    """

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    priority: Ints | None = None
    patience_s: Floats | None = None
    chains: Sequence[list[int]] | None = None


class OpenLoad:
    """`OpenRequests` as a load."""

    feedback = False

    def __init__(self, requests: OpenRequests, until_s: float = math.inf) -> None:
        self.until_s = until_s
        zeros = np.zeros(len(requests.arrival_s), np.int64)
        self._times: list[float] = [*requests.arrival_s.tolist(), math.inf]
        self._prompts: list[int] = requests.prompt_tokens.tolist()
        self._outputs: list[int] = requests.output_tokens.tolist()
        self._priorities: list[int] = (zeros if requests.priority is None else requests.priority).tolist()
        self._patience: list[float] | None = None if requests.patience_s is None else requests.patience_s.tolist()
        self._chains = requests.chains
        self._next = 0

    def next_s(self) -> float:
        return self._times[self._next]

    def take(self, now_s: float) -> Iterator[tuple[VirtualSequence, float]]:
        while self._times[self._next] <= now_s:
            row = self._next
            self._next += 1
            at = self._times[row]
            sequence = VirtualSequence(
                "", self._prompts[row], self._outputs[row], at, [] if self._chains is None else self._chains[row],
                self._priorities[row], row=row,
            )  # fmt: skip
            yield sequence, math.inf if self._patience is None else at + self._patience[row]

    def ended(self, row: int, now_s: float) -> None:
        pass


def serve(
    resolved: Resolved,
    requests: OpenRequests,
    *,
    until_s: float = math.inf,
    tick_s: float = 1.0,
    keep_tokens: bool = False,
    skip: bool = True,
) -> ServedRequests:
    """What one replica does with the requests; see `FleetSettings` for the rest."""
    settings = FleetSettings(resolved, keep_tokens=keep_tokens, tick_s=tick_s, skip=skip)
    fleet = Fleet(settings, OpenLoad(requests, until_s))
    fleet.run()
    return fleet.rows.served(fleet.series[0].series())
