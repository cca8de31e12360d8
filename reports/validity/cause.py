"""Why an invalid run is invalid, in plain words: of several failed checks the one that explains the others.

A load generator that is short of a core fails several checks at once, and a run that was killed fails those that need
its end. The first of `_HAPPENED` that failed is named; the others stand beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tailgate.reports.validity.client import Check
from tailgate.workloads.common.formatting import plain

# What a failed check means, causes before their consequences; `{why}` is the check's own words. Other checks come
# first, such as that of the side on which a run broke off, and say their own words.
_HAPPENED: Final = {
    "interrupted": "The run did not come to its end: {why}",
    "files": "Files of the run are not those that were measured: {why}",
    "lost_rows": "Records are missing: {why}",
    "unclosed_injectors": "Records are missing: {why}",
    "duplicates": "The records are wrong: {why}",
    "client_resources": "The load generator ran out of resources: {why}",
    "clock": "This machine's clock was set while it measured: it jumped by {value}{bound}",
    "own_error": "This machine was too busy, or too slow, for this load: {why}{bound}",
    "injector_busy": "The load generator was at its limit: in one second its thread computed for {value} of the time"
    "{bound}",
    "dispatch_lag": "The load generator itself was late: one request in a hundred was begun {value} or more after its "
    "time{bound}",
    "turnaround_lag": "The load generator itself was late: one user in a hundred waited {value} or more before the "
    "next request was begun{bound}",
    "receive_lag": "The load generator read answers too late: one read in a hundred came {value} or more after the "
    "data{bound}",
    "coalesced_arrivals": "The load generator read answers too late: {value} of the tokens were read together with "
    "others, so that nobody knows when each of them came{bound}",
    "coalesced_first_tokens": "The load generator read answers too late: {value} of the first tokens were read "
    "together with others, so that nobody knows when they came{bound}",
    "bursts": "The load generator was late at times: {why} is {value}{bound}",
    "offered_load": "The load generator offered less load than it should: {value} of it is missing{bound}",
    "bookkeeping": "The records don't add up: two counts of the time that requests were in flight differ by {value}"
    "{bound}",
    "telemetry": "The GPUs were not watched all the time: {value} passed without a sample{bound}",
    "warmth": "The server was not warm yet: the first tenth of the requests took {value} as long for a token as the "
    "others{bound}",
    "cache": "The server's prefix cache held what it should not: {value} more of the prompts than they share{bound}",
    "foreign_traffic": "Somebody else used the server: {value} were not of this run{bound}",
    "token_counts": "The server counts other tokens than its answers tell: they differ by {value}",
}
_RANKS: Final = {name: rank for rank, name in enumerate(_HAPPENED)}


@dataclass(frozen=True)
class InvalidCause:
    """What happened and what to do, each in whole sentences; and the other checks that failed."""

    happened: str
    remedy: str
    others: tuple[Check, ...]


def cause(failed: Sequence[Check]) -> InvalidCause:
    """The cause among one or more failed checks."""
    first = min(failed, key=lambda check: _RANKS.get(check.name, -1))
    others = tuple(check for check in failed if check is not first)
    return InvalidCause(_happened(first), _sentence(first.remedy), others)


def _happened(check: Check) -> str:
    text = _HAPPENED.get(check.name, "{why}")
    if check.value is None and "{value}" in text:
        text = "{why}"
    value, most = (f"{plain(number)} {check.unit}".rstrip() for number in (check.value, check.bound))
    bound = f"; at most {most} is allowed" if check.bound else ""
    return _sentence(text.format(why=check.why, value=value, most=most, bound=bound))


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) or not text else '.'}"
