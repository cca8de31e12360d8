"""The compiled engine on a virtual clock: the common case, 30,000 times as fast as the clock on the wall and more.

It does what `model.scheduler.Scheduler` does to requests that share no blocks, first come, first served: token budget,
chunked prefill, seats, blocks by number, preemption by recompute, prompts of which a given part is cached, users who
give up, a full queue, sessions whose turns follow their answers. Steps in which nothing changes but the contexts'
lengths are gone through without scheduling (_kernel.c). What it gives agrees with Python's to the bit.

What happens at the same time happens in this order: a step's tokens, then those who give up, then those who come (of
several, the one that stands first), then the series is sampled, then the next step is chosen. Users give up and come
while a step runs, too: one whose patience ends before the step does gets no token of it, and leaves its place and
blocks at once.

The extension is optional, as the injector's are: `AVAILABLE` says whether it is there, `why_not` whether a deployment
is one for it.
"""

import importlib.util
import os
from dataclasses import dataclass, fields
from math import inf
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailgate.harness.engine.config import Resolved, Settings
from tailgate.harness.engine.model.step_law import StepLaw
from tailgate.harness.engine.virtual.outcome import Ending, ServedRequests, ServerSeries
from tailgate.workloads.common.arrays import Floats, Ints
from tailgate.workloads.table.columns import NO_TIME, Columns

# Whether the kernel is there and wanted (TAILGATE_PURE_PYTHON unset).
AVAILABLE: Final = (
    not os.environ.get("TAILGATE_PURE_PYTHON") and importlib.util.find_spec(f"{__package__}._kernel") is not None
)

if AVAILABLE or TYPE_CHECKING:
    from tailgate.harness.engine.virtual import _kernel

_NO_LIMIT: Final = 2**62
_MOST: Final = 2**24  # so that sums of pairs are exact in a double
_SERIES: Final = 6
_COLUMNS: Final = ("session", "turn", "think_ns", "prompt_tokens", "output_tokens")
# Settings that change nothing of what the kernel does, or that arrive in it by its arguments. Any other must be as it
# is by default: one that comes later is Python's until somebody adds it here.
_UNDERSTOOD: Final = frozenset({
    "preset", "served_model_name", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size",
    "num_gpu_blocks_override", "gpu_memory_utilization", "tensor_parallel_size", "quantization", "kv_cache_dtype",
    "enable_prefix_caching", "max_num_queued_reqs", "enable_per_request_metrics", "enable_prompt_tokens_details",
    "seed", "jitter", "natural_output_tokens",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class RequestArrays:
    """What comes, an entry a request. Times in s of the virtual clock; lengths of at least one token.

    `arrival_s` ascends. `cached_tokens` of a prompt are found in the cache whenever it is scheduled, in whole blocks
    and all but its last token at most; they take blocks as any. `patience_s` is how long the client waits for the whole
    answer, from its arrival. With `previous`, a request with an entry of at least 0 arrives `think_s` after that one
    has ended, however it ended; its `arrival_s` isn't read.
    """

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    cached_tokens: Ints | None = None
    patience_s: Floats | None = None
    previous: Ints | None = None
    think_s: Floats | None = None

    @classmethod
    def of(cls, rows: Columns | pa.Table) -> "RequestArrays":
        """Rows of an open loop's plan, or of its `open_columns`; a turn without a time follows the one before it."""
        if isinstance(rows, Columns):
            at_ns, columns = rows.at_ns, {name: getattr(rows, name) for name in _COLUMNS}
        else:
            at_ns = rows["at_ns"].fill_null(NO_TIME).to_numpy()
            columns = {name: rows[name].to_numpy() for name in _COLUMNS}
        follows = at_ns == NO_TIME
        arrival_s = np.where(follows, np.nan, at_ns / 1e9)
        prompt, output = columns["prompt_tokens"], columns["output_tokens"]
        if not follows.any():
            return cls(arrival_s, prompt, output)
        order = np.lexsort((columns["turn"], columns["session"]))
        before = np.full(len(at_ns), -1)
        before[order[1:]] = order[:-1]
        previous, think_s = np.where(follows, before, -1), columns["think_ns"] / 1e9
        return cls(arrival_s, prompt, output, previous=previous, think_s=think_s)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The scheduler's settings under vLLM's names; `blocks` is the size of the cache. None: no limit."""

    block_size: int
    blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_num_queued_reqs: int | None = None
    max_model_len: int | None = None

    @classmethod
    def of(cls, resolved: Resolved) -> "EngineLimits":
        """The limits of a resolved deployment."""
        settings = resolved.settings
        return cls(
            settings.block_size, resolved.num_gpu_blocks, resolved.max_num_seqs, resolved.max_num_batched_tokens,
            settings.max_num_queued_reqs, resolved.max_model_len,
        )  # fmt: skip


def why_not(settings: Settings, *, prefix_blocks: bool = False) -> str | None:
    """Why Python has to do it, as a sentence; None if the kernel can.

    `prefix_blocks`: requests share blocks, and how much of each prompt is cached is not given. Priorities don't count
    under first come, first served.
    """
    if not AVAILABLE:
        unwanted = os.environ.get("TAILGATE_PURE_PYTHON")
        return "TAILGATE_PURE_PYTHON is set." if unwanted else "There was no C compiler when Tailgate was installed."
    if prefix_blocks and settings.enable_prefix_caching:
        return "The requests share blocks of the prefix cache."
    for setting in fields(settings):
        if setting.name not in _UNDERSTOOD and getattr(settings, setting.name) != setting.default:
            return f"The compiled engine doesn't know {setting.name} = {getattr(settings, setting.name)}."
    return None


def serve(
    requests: RequestArrays,
    limits: EngineLimits,
    law: StepLaw,
    *,
    horizon_s: float = inf,
    factors: Floats | None = None,
    interval_s: float | None = None,
    tokens: bool = False,
) -> ServedRequests:
    """What the engine does with the requests until all have ended, or up to and including `horizon_s`.

    What is in flight then ends there, unserved; what arrives later has no times but its arrival.
    Step n (from 0, all steps counted) takes `factors[n % len(factors)]` times the law's seconds. The series has a row
    at every multiple of `interval_s` up to the horizon, or up to the last event where there is none. Its
    `prompt_tokens` count at a request's first token, as vLLM's do. `tokens` asks for the tokens' times, 8 bytes each.

    With `previous`, requests stand in the order given, and `arrival_s` is NaN for one that never came.
    ValueError: an argument is out of its range.
    """
    given = _checked(requests, limits)
    count = len(given.arrival_s)
    horizon_s = float(horizon_s)
    law_numbers = law.flat()
    if factors is not None:
        factors = _array(factors, np.float64)
        _demand(len(factors) > 0 and np.isfinite(factors).all() and (factors > 0).all(), "factors are above 0")
    _demand(bool(np.isfinite(law_numbers).all()), "a law's numbers are finite")
    _demand(interval_s is None or 0 < interval_s < inf, "an interval is above 0")
    _demand(horizon_s > -inf, "the horizon is a time")
    arrival_s = given.arrival_s.copy()
    if given.previous is not None:
        arrival_s[given.previous >= 0] = np.nan
    scheduled_s, first_s, end_s = (np.full(count, np.nan) for _ in range(3))
    generated, cached, preemptions = (np.zeros(count, np.int64) for _ in range(3))
    ending = np.full(count, int(Ending.UNSERVED))
    token_at = _begins(given.output_tokens) if tokens else None
    token_s = None if token_at is None else np.empty(int(token_at[-1]))
    rows = _kernel.simulate(
        count,
        (arrival_s, given.prompt_tokens, given.output_tokens, given.cached_tokens, given.patience_s, given.previous,
         given.think_s, token_at),
        (scheduled_s, first_s, end_s, generated, cached, preemptions, ending, token_s),
        (limits.block_size, limits.blocks, limits.max_num_seqs, limits.max_num_batched_tokens,
         _bound(limits.max_num_queued_reqs), _bound(limits.max_model_len)),
        law_numbers, factors, horizon_s, interval_s or 0.0,
    )  # fmt: skip
    end_s[(ending == Ending.UNSERVED) & (arrival_s <= horizon_s)] = horizon_s
    if token_s is not None and token_at is not None:
        token_s, token_at = _delivered(token_s, token_at, generated)
    return ServedRequests(
        arrival_s, scheduled_s, first_s, end_s, generated, cached, preemptions, ending,
        _series(rows, interval_s or 0.0), token_s, token_at,
    )  # fmt: skip


def _checked(requests: RequestArrays, limits: EngineLimits) -> RequestArrays:
    """The arrays as the kernel reads them. ValueError where one is out of its range, or of another length."""
    count = len(requests.arrival_s)
    previous = None if requests.previous is None else _array(requests.previous, np.int64)
    checked = RequestArrays(
        _array(requests.arrival_s, np.float64),
        _array(requests.prompt_tokens, np.int64),
        _array(requests.output_tokens, np.int64),
        np.zeros(count, np.int64) if requests.cached_tokens is None else _array(requests.cached_tokens, np.int64),
        np.full(count, inf) if requests.patience_s is None else _array(requests.patience_s, np.float64),
        previous,
        None if previous is None else _array(np.zeros(count) if requests.think_s is None else requests.think_s, float),
    )
    columns = [getattr(checked, column.name) for column in fields(checked)]
    _demand(all(column is None or column.shape == (count,) for column in columns), "the arrays are of one length")
    own = checked.arrival_s if previous is None else checked.arrival_s[previous < 0]
    _demand(bool(np.isfinite(own).all() and (np.diff(own) >= 0).all()), "arrival_s ascends")
    lengths = (checked.prompt_tokens, checked.output_tokens)
    _demand(all(bool(((length >= 1) & (length < _MOST)).all()) for length in lengths), f"lengths are 1 to {_MOST - 1}")
    _demand(bool((columns[3] >= 0).all()), "cached_tokens are at least 0")
    _demand(bool((columns[4] >= 0).all()), "patience_s is at least 0")
    if previous is not None and checked.think_s is not None:
        _demand(bool((previous < np.arange(count)).all()), "a request follows one that stands before it")
        _demand(bool(np.isfinite(checked.think_s).all() and (checked.think_s >= 0).all()), "think_s is at least 0")
    for limit in fields(limits):
        value = getattr(limits, limit.name)
        least = 0 if limit.name == "max_num_queued_reqs" else 1
        most = 2**31 if limit.name == "blocks" else _MOST
        _demand(value is None or least <= value < most, f"{limit.name} is {least} to {most - 1}")
    return checked


def _demand(holds: bool | np.bool_, what: str) -> None:
    if not holds:
        raise ValueError(f"not for the engine: {what}")


def _bound(limit: int | None) -> int:
    return _NO_LIMIT if limit is None else limit


def _array(values: Floats | Ints, kind: type) -> npt.NDArray[Any]:
    return np.ascontiguousarray(values, dtype=kind)


def _delivered(token_s: Floats, token_at: Ints, generated: Ints) -> tuple[Floats, Ints]:
    """The tokens that came, without the room for those that didn't."""
    if int(generated.sum()) == len(token_s):
        return token_s, token_at
    room = np.diff(token_at)
    place = np.arange(len(token_s)) - np.repeat(token_at[:-1], room)
    return token_s[place < np.repeat(generated, room)], _begins(generated)


def _begins(lengths: Ints) -> Ints:
    """Where each list begins when they stand one after the other, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _series(rows: bytes, interval_s: float) -> ServerSeries:
    table = np.frombuffer(rows, np.int64).reshape(-1, _SERIES)
    return ServerSeries(interval_s * np.arange(1.0, len(table) + 1.0), *(column.copy() for column in table.T))
