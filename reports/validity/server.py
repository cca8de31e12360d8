"""Validity by the server's token and request counters, held against our records.

The counters are differences between the first scrape (before any request) and the last (after the drain),
summed over engines and endpoints. What only the client knows is `reports.validity.client`.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.rundir.telemetry import Telemetry
from tailgate.reports.validity.client import Check, at_most

FOREIGN_SHARE: Final = 0.02
_PROMPT: Final = ("vllm:prompt_tokens_total", "vllm:prompt_tokens")
_OUTPUT: Final = ("vllm:generation_tokens_total", "vllm:generation_tokens")
_FINISHED: Final = ("vllm:request_success_total", "vllm:request_success")
# Requests that the server never began, or finished before making a token.
_NO_TOKENS: Final = ("not_sent", "connect_error", "client_error", "rejected", "http_error")


def server_checks(analysis: Analysis) -> Iterator[Check]:
    server, why = analysis.server, ""
    if analysis.several_behind:
        why = f"several servers answer behind {' and '.join(analysis.several_behind)}: name them under target.urls"
    elif server is None:
        why = "the server's /metrics were not sampled"
    elif server.delta(*_PROMPT) is None or server.delta(*_OUTPUT) is None:
        why = "the server's /metrics have no token counters that are known here"
    elif wrong := int(np.count_nonzero(analysis.run.usage_contradicted)):
        why = f"the usage of {wrong:,} answers contradicts their streams"
    else:
        why = _not_covering(analysis, server)
    if server is None or why:
        yield Check("token_counts", "unchecked", None, 0.0, "tokens", why)
        yield Check("foreign_traffic", "unchecked", None, None, "", why)
        return
    yield _token_counts(analysis, server)
    yield _foreign(analysis, server)


def _not_covering(analysis: Analysis, server: Telemetry) -> str:
    """Why the scrapes don't enclose all requests; empty if they do."""
    begun, ended = analysis.run.column("dispatched_ns"), analysis.run.column("end_ns")
    # Of every endpoint, scrapes that brought the counters: one that failed says nothing.
    counted = [source.t_ns for name in (*_PROMPT, *_OUTPUT) if name in server.names for source in server.series(name)]
    if not counted:
        return ""
    if np.isfinite(begun).any() and max(times[0] for times in counted) > np.nanmin(begun):
        return "the first scrape of /metrics came after the first request"
    if np.isfinite(ended).any() and min(times[-1] for times in counted) < np.nanmax(ended):
        return "the last scrape of /metrics came before the last answer's end"
    return ""


def _ours(analysis: Analysis) -> tuple[float, float, bool]:
    """(prompt tokens, output tokens, whether that is all we can have caused) by `usage`, all phases."""
    run = analysis.run
    prompt = float(np.nansum(run.column("prompt_tokens")[run.ok]))
    output = float(np.nansum(run.column("output_tokens")[run.ok]))
    return prompt, output, bool((run.ok | run.is_text("status", *_NO_TOKENS)).all())


def _token_counts(analysis: Analysis, server: Telemetry) -> Check:
    prompt, output, whole = _ours(analysis)
    theirs_prompt, theirs_output = server.delta(*_PROMPT) or 0.0, server.delta(*_OUTPUT) or 0.0
    exact = whole and analysis.run.manifest.isolation == "exclusive"
    text = (
        f"usage says {prompt:,.0f} prompt and {output:,.0f} output tokens of ok requests, "
        f"the server's counters {theirs_prompt:,.0f} and {theirs_output:,.0f}"
    )
    remedy = "Look for other traffic, a gateway that changes requests, or a server whose usage is wrong."
    if exact:
        off = abs(theirs_prompt - prompt) + abs(theirs_output - output)
        return at_most("token_counts", off, 0.0, "tokens", text, remedy)
    # With foreign or cut-off requests the server may have counted more than we can know, but never less.
    missing = max(prompt - theirs_prompt, 0.0) + max(output - theirs_output, 0.0)
    return at_most("token_counts", missing, 0.0, "tokens", f"{text} (a bound: the server may have more)", remedy)


def _foreign(analysis: Analysis, server: Telemetry) -> Check:
    remedy = "Keep others away from the server while it is measured, or declare isolation: shared."
    if analysis.run.manifest.isolation == "exclusive":
        finished = server.delta(*_FINISHED)
        if finished is None:
            return Check("foreign_traffic", "unchecked", None, 0.0, "requests", "the server counts no requests")
        sent = int(np.count_nonzero(~analysis.run.is_text("status", *_NO_TOKENS)))
        foreign = max(0.0, finished - sent)
        return at_most(
            "foreign_traffic", foreign, 0.0, "requests", f"{foreign:,.0f} requests on the server are not ours", remedy
        )
    prompt, output, _ = _ours(analysis)
    run = analysis.run
    # Of requests that were cut off we know what we asked for: the server may have made as much before it noticed.
    cut = ~run.ok & ~run.is_text("status", *_NO_TOKENS)
    unknown = cut & ((run.column("prompt_tokens_planned") == 0) | (run.column("output_tokens_planned") == 0))
    if unknown.any():
        why = f"{np.count_nonzero(unknown):,} requests of a length that only the server knows were cut off"
        return Check("foreign_traffic", "unchecked", None, 100 * FOREIGN_SHARE, "%", why)
    prompt += float(np.nansum(run.column("prompt_tokens_planned")[cut]))
    output += float(np.fmax(run.column("output_tokens_planned"), run.column("chunks"))[cut].sum())
    theirs = (server.delta(*_PROMPT) or 0.0) + (server.delta(*_OUTPUT) or 0.0)
    share = max(0.0, theirs - prompt - output) / theirs if theirs else 0.0
    text = "share of the server's tokens that are not ours"
    if cut.any():
        text += f" (at least: {np.count_nonzero(cut):,} requests that were cut off count with all they asked for)"
    return at_most("foreign_traffic", 100 * share, 100 * FOREIGN_SHARE, "%", text, remedy)
