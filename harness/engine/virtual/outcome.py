"""What a simulated engine did with a list of requests: one array entry a request, and the server's own series."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from tailgate.workloads.common.arrays import Floats, Ints, Mask


class Ending(IntEnum):
    """How a request ended."""

    COMPLETE = 0
    ABANDONED = 1  # the client's patience or time-out ended first
    REJECTED = 2  # the queue was full
    TOO_LONG = 3  # refused: it has no room in the context or in the cache
    LOST = 4  # its replica died
    UNSERVED = 5  # the horizon came first
    UNREACHABLE = 6  # no replica was up when it came


@dataclass(frozen=True, slots=True)
class ServerSeries:
    """The engine's state at the ends of equal intervals; counters are totals since the start. Times in s."""

    t_s: Floats
    running: Ints
    waiting: Ints
    blocks_used: Ints
    prompt_tokens: Ints
    generation_tokens: Ints
    preemptions: Ints


@dataclass(frozen=True, slots=True)
class ServedRequests:
    """One entry a request, in the order of arrival. Times in s of the virtual clock, NaN where it never came to it.

    `token_s[token_at[i]:token_at[i + 1]]` are the times of request i's tokens; both are None unless asked for.
    """

    arrival_s: Floats
    scheduled_s: Floats
    first_token_s: Floats
    end_s: Floats  # of its last token, or when it was abandoned, refused or lost
    generated: Ints
    cached_tokens: Ints
    preemptions: Ints
    ending: Ints  # `Ending`
    series: ServerSeries
    token_s: Floats | None = None
    token_at: Ints | None = None

    @property
    def complete(self) -> Mask:
        """Which requests got their whole answer."""
        return np.asarray(self.ending == Ending.COMPLETE)
