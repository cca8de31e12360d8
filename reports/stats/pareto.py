"""Which of several configurations nothing else beats on both counts."""

from collections.abc import Sequence


def dominated_by(points: Sequence[tuple[float, float] | None], higher: tuple[bool, bool]) -> list[int | None]:
    """For each point the index of one that is at least as good on both counts and better on one; else None.

    `higher` says for each count whether more is better. A missing point (None) neither dominates nor is
    dominated. O(n^2): configurations are few.
    """
    signs = tuple(1.0 if up else -1.0 for up in higher)
    scored = [None if p is None else (signs[0] * p[0], signs[1] * p[1]) for p in points]
    return [None if mine is None else _beaten(mine, scored) for mine in scored]


def _beaten(mine: tuple[float, float], scored: Sequence[tuple[float, float] | None]) -> int | None:
    for place, other in enumerate(scored):
        if other is not None and other != mine and other[0] >= mine[0] and other[1] >= mine[1]:
            return place
    return None
