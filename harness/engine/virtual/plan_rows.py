"""A plan's rows as sequences of the engine, without making prompts: equal content is known by equal numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tailgate.harness.engine.config import Resolved
from tailgate.harness.engine.virtual.replica import VirtualSequence
from tailgate.workloads.sampling import portable_math
from tailgate.workloads.sampling.random_streams import RandomField

_NATURAL_SIGMA = 0.7
_COLUMNS = ("index", "session", "turn", "think_ns", "priority", "prompt_tokens", "output_tokens", "content_seed")


class PlanRows:
    """Rows by position. `more(start, count)` gives further ones of an endless plan; `natural` leaves ends to the model.

    A row's position is its place in the plan. The next turn of its session follows it, if that waits for its end.
    """

    def __init__(
        self,
        table: Any,
        resolved: Resolved,
        block_tokens: int,
        *,
        natural: bool = False,
        more: Callable[[int, int], Any] | None = None,
    ) -> None:
        self.resolved = resolved
        self.tables = [table]
        self.natural = natural
        self.at_ns: list[int | None] = []
        self._block_tokens = block_tokens
        self._more = more
        self._columns: dict[str, list[int]] = {name: [] for name in _COLUMNS}
        self._blocks: list[list[int]] = []
        self._lengths: list[int] = []
        self._place: dict[tuple[int, int], int] = {}  # (session, turn) -> position, of turns that wait
        self._add(table)

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def endless(self) -> bool:
        return self._more is not None

    def extend(self) -> None:
        """Make as many rows again."""
        assert self._more is not None
        table = self._more(len(self), max(len(self), 1))
        self.tables.append(table)
        self._add(table)

    def _add(self, table: Any) -> None:
        first = len(self)
        for name, values in self._columns.items():
            values.extend(table[name].to_pylist())
        self.at_ns += table["at_ns"].to_pylist()
        self._blocks += table["prefix_blocks"].to_pylist()
        columns = self._columns
        self._lengths += self._natural_lengths(first) if self.natural else columns["output_tokens"][first:]
        for position in range(first, len(self)):
            if columns["turn"][position] and self.at_ns[position] is None:
                self._place[columns["session"][position], columns["turn"][position]] = position

    def column(self, name: str) -> list[int]:
        return self._columns[name]

    def output_tokens(self, position: int) -> int:
        """How long the answer will be."""
        return self._lengths[position]

    def begins(self, position: int) -> bool:
        """Whether it is its session's first turn."""
        return self._columns["turn"][position] == 0

    @property
    def has_followers(self) -> bool:
        return bool(self._place)

    def follower(self, position: int) -> int | None:
        """Where the same session's next turn is, if that waits for this one's end."""
        return self._place.get((self._columns["session"][position], self._columns["turn"][position] + 1))

    def think_ns(self, position: int) -> int:
        return self._columns["think_ns"][position]

    def sequence(self, position: int, at_s: float) -> VirtualSequence:
        """The request of a row, arriving at `at_s`."""
        columns, output = self._columns, self._lengths[position]
        stops = output < columns["output_tokens"][position]
        return VirtualSequence(
            "", columns["prompt_tokens"][position], output, at_s, self._chain(position, output),
            columns["priority"][position], "stop" if stops else "length", row=position,
        )  # fmt: skip

    def _chain(self, position: int, output: int) -> list[int]:
        """Hashes of the blocks of prompt and answer, each chained with the one before it.

        Python's hash of integers is the same in every process.
        """
        settings = self.resolved.settings
        if not settings.enable_prefix_caching:
            return []
        size, unit, ids = settings.block_size, self._block_tokens, self._blocks[position]
        prompt, seed = self._columns["prompt_tokens"][position], self._columns["content_seed"][position]
        shared = min(len(ids) * unit, prompt)
        link, chain = hash((size, unit)), []
        for low in range(0, (prompt + output) // size * size, size):
            high = low + size
            if high <= shared:
                link = hash((link, low % unit, *ids[low // unit : (high - 1) // unit + 1]))
            elif high <= prompt:
                link = hash((link, seed, *ids[low // unit :]))
            else:
                link = hash((link, seed, prompt))
            chain.append(link)
        return chain

    def _natural_lengths(self, first: int) -> list[int]:
        """How long answers are whose end is left to the model: lognormal, at least one token, at most the limit."""
        settings = self.resolved.settings
        limit = np.array(self._columns["output_tokens"][first:], np.int64)
        index = np.array(self._columns["index"][first:], np.int64)
        normal = portable_math.normal_quantile(RandomField(settings.seed, "engine", "natural length").uniform(index))
        natural = np.rint(settings.natural_output_tokens * portable_math.exp(_NATURAL_SIGMA * normal))
        lengths: list[int] = np.clip(natural, 1, limit).astype(np.int64).tolist()
        return lengths
