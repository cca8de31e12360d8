"""Which of the servers' counts of tokens can be true: `usage` held against the stream that it came with.

A chunk of content brings at least one token, and no answer is longer than was asked for. A count that says otherwise
is wrong (gateways that leave reasoning out, or send zeros); what rests on it is estimated from the arrivals instead.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tailgate.workloads.common.arrays import Floats, Mask

_LIMITS = ("max_tokens", "max_completion_tokens")


def output_contradicted(claimed: Floats, chunks: Floats, limit: Floats | None) -> Mask:
    """Where the output tokens that usage claims can't be those of the stream; arrays with one entry per request.

    Args:
        claimed: NaN without usage, negative where it named no count.
        chunks: content arrivals.
        limit: tokens that were asked for at most, 0 where that isn't known; None if it isn't for any. Who sends more
            chunks than that doesn't heed it, and its usage isn't the worse for it.
    """
    wrong = (claimed < 0) | (claimed < chunks)
    if limit is not None:
        wrong |= (limit > 0) & (claimed > np.maximum(limit, chunks))
    return np.asarray(wrong)


def planned_is_limit(spec: Mapping[str, Any]) -> bool:
    """Whether planned lengths are limits that the server was told: bodies of a log keep their own unless forced."""
    content = (spec.get("workload") or {}).get("content") or {}
    kind = content.get("kind") if isinstance(content, Mapping) else content
    replayed = kind == "replay" and spec.get("output", "forced") != "forced"
    return not replayed and not any(name in (spec.get("extra") or {}) for name in _LIMITS)
