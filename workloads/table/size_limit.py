"""How many requests a plan may have: more than any memory here holds are refused before they are made."""

from typing import Final

from tailgate.workloads.common.errors import UserError

MOST_ROWS: Final = 50_000_000


def refuse_too_many(rows: int) -> None:
    """Raise a UserError before a plan is made that no memory holds."""
    if rows > MOST_ROWS:
        raise UserError(
            f"the plan would have {rows:,} requests, more than {MOST_ROWS:,}",
            where="workload",
            remedy="Run shorter or at a lower rate, or split the run",
        )
