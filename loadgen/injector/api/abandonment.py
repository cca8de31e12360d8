"""Planned abandonment: which users hang up, and after how long.

Both are functions of (seed, the row's index): the same users are impatient in every run of a plan, with any
number of injectors. Who hangs up is here; that the socket is closed then, and that the record says `cancelled`,
is the dispatcher's.
"""

import numpy as np

from tailgate.loadgen.job import Job
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.sampling.random_streams import RandomField


class Patience:
    """A share of the users hangs up when a time drawn from a law of seconds has passed. A bad law is a UserError."""

    def __init__(self, law: str, share: float, seed: int) -> None:
        from tailgate.workloads.sampling.distribution_grammar import parse

        try:
            self._law = parse(law)
        except ValueError as error:
            raise UserError(str(error), where="patience") from error
        self._share = share
        self._who = RandomField(seed, "patience", "who")
        self._how_long = RandomField(seed, "patience", "how long")

    @classmethod
    def of(cls, job: Job) -> "Patience | None":
        """A job's patience, or None if nobody hangs up."""
        return None if job.patience is None else cls(job.patience, job.patience_share, job.patience_seed)

    def ns(self, index: int) -> int | None:
        """How long a row's user waits after its request is due, or None if it waits for the end."""
        row = np.array([index])
        if self._who.uniform(row)[0] >= self._share:
            return None
        return int(self._law.quantile(self._how_long.uniform(row))[0] * 1e9)
