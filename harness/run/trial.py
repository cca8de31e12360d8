"""One request to each server before any load, in the form that will be measured: does it take it, and who answers?

A gateway may pass vLLM's list of models through and refuse token ids, take `max_completion_tokens` only, or serve an
embedded engine under another name. What a server's own refusal names is left out or renamed, and said; where no form
is taken, nothing is measured.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.engine import SIMULATED_OWNER
from tailgate.harness.run.own_requests import OwnAnswer, OwnRequests, send
from tailgate.harness.run.prompt_content import Prompts
from tailgate.harness.run.request_form import RequestForm, adapted
from tailgate.harness.targets.base import Identity, TargetGone
from tailgate.harness.targets.inspect.probe import REDIRECTS, access_refused, moved
from tailgate.loadgen.injector.http.endpoint import public_name
from tailgate.loadgen.job import PATHS
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import Plan

_PROMPT_TOKENS: Final = 32
_OUTPUT_TOKENS: Final = 16  # some servers take no less
# Not about the request: the server is busy, or slow, or another one didn't answer it.
_PASSING: Final = (408, 409, 425, 429, 502, 503, 504)
# About the request itself, so that each one like it would have the same answer (200: an error inside a stream).
_ABOUT_THE_REQUEST: Final = (200, 400, 404, 405, 413, 415, 422, 501)


@dataclass
class Trial:
    """The form that every server took, and what a reader should know."""

    form: RequestForm
    simulated: bool = False
    notices: list[str] = field(default_factory=list)


async def try_form(
    http: aiohttp.ClientSession, spec: RunSpec, identity: Identity, form: RequestForm, prompts: Prompts, plan: Plan,
    patience_s: float,
) -> Trial:  # fmt: skip
    """Try the form at every server, and others that the spec allows where it is refused.

    Prompts that are text where they were ids still have to be made (`Trial.form.prompt`).

    Raises:
        UserError: a server redirects, wants a key, or takes token ids only where the spec wants text, or the reverse.
        TargetGone: it refuses every form.
    """
    trial = Trial(form)
    maker = functools.cache(lambda form: OwnRequests(spec, identity, form, prompts.sent_as(form.prompt), plan))
    for url in identity.urls:
        await _try_at(http, url, spec, identity, maker, aiohttp.ClientTimeout(total=patience_s), trial)
    return trial


async def _try_at(
    http: aiohttp.ClientSession, url: str, spec: RunSpec, identity: Identity,
    maker: Callable[[RequestForm], OwnRequests], timeout: aiohttp.ClientTimeout, trial: Trial,
) -> None:  # fmt: skip
    where = public_name(url)
    first, tried, form, again = None, {trial.form}, trial.form, False
    while True:
        own = maker(form)
        try:
            answer = await send(http, url, own.endpoint, own.body(_PROMPT_TOKENS, _OUTPUT_TOKENS), timeout)
        except TimeoutError:
            return _pass_over(trial, identity, where, f"did not answer a trial request within {timeout.total:g} s")
        except aiohttp.ClientError as error:
            return _pass_over(trial, identity, where, f"broke off a trial request: {error}")
        if answer.served:
            trial.simulated |= SIMULATED_OWNER in answer.fingerprint
            if first is not None:
                _take(trial, form, spec, where, first)
            return
        if answer.status in REDIRECTS:
            raise moved(url, PATHS[own.endpoint], answer.location, answer.status)
        if answer.status in (401, 403):
            raise access_refused(where, answer.status)
        if answer.status in _PASSING:
            said = f"answered a trial request with HTTP {answer.status}: {answer.error}"
            return _pass_over(trial, identity, where, said)
        if first is None and answer.status >= 500 and not again:  # a gateway's refusal of ids, or a moment's weakness
            again = True
            continue
        first = first or answer
        following = adapted(form, spec, answer.error, tried)
        if following is None:
            break
        form = following
        tried.add(form)
    said = f"HTTP {first.status}: {first.error}" if first.status != 200 else first.error
    if spec.workload.content.kind == "replay" or first.status not in _ABOUT_THE_REQUEST:  # others may fare better
        return _pass_over(trial, identity, where, f"refused a trial request ({said})")
    raise _refused(url, spec, identity, said, first.status)


def _pass_over(trial: Trial, identity: Identity, where: str, what: str) -> None:
    """Leave it to the load to show how the server fares, unless it has answered nothing at all."""
    if identity.silent:
        raise TargetGone(f"{what}, after its list of models had failed too", where=where, remedy="Is the server up?")
    trial.notices.append(f"{where} {what}")


def _take(trial: Trial, form: RequestForm, spec: RunSpec, where: str, refusal: OwnAnswer) -> None:
    """Go on with a form that was taken where the first was not."""
    said = f"HTTP {refusal.status}: {refusal.error}"
    if trial.form.prompt == "ids" and form.prompt == "text":
        if spec.workload.content.kind == "random":
            raise UserError(
                f"refuses prompts as token ids ({said}), and random tokens have no other form",
                where=where, remedy="Use content: corpus (--content corpus), whose prompts can be sent as text.",
            )  # fmt: skip
        if spec.target.prompt == "ids":
            raise UserError(
                f"refuses prompts as token ids ({said}) and takes them as text",
                where=where, remedy="Set target.prompt: text (--prompt text), or name the server behind the gateway.",
            )  # fmt: skip
    trial.notices.append(f"{where} refused a trial request ({said}); what it takes is used: {form.text}")
    trial.form = form


def _refused(url: str, spec: RunSpec, identity: Identity, said: str, status: int) -> UserError:
    endpoint = spec.target.endpoint
    remedy = f"Does it serve {PATHS[endpoint]} and the model {identity.model!r}?"
    if identity.models and not identity.listed:
        remedy += f" It lists: {_some(identity.models)}."
    if spec.target.fields != "auto":
        remedy += f" It gets target.fields: {spec.target.fields}; auto leaves out what it doesn't take."
    return TargetGone(
        f"refuses a trial request before the load ({said})", where=f"{public_name(url)}{PATHS[endpoint]}", remedy=remedy
    )


def _some(names: Sequence[str], most: int = 10) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
