"""One request to each server before any load, in the form that will be measured: does it take it, and who answers?

A gateway may pass vLLM's list of models through and refuse token ids, take `max_completion_tokens` only, or serve an
embedded engine under another name. What a server's own refusal names is left out or renamed, and said. The form is
one for all servers: where one changes it, all are asked again. Where no form is taken by all, nothing is measured.

The request has the lengths of the plan's middle one, since servers have limits in both directions.
"""

import asyncio
from collections.abc import Sequence
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

# An answer that has begun is heard for so long: a short one ends by itself, and a long one is hung up on.
_HEAR_S: Final = 2.0
# Not about the request: the server is busy, or slow, or another one didn't answer it.
_PASSING: Final = (408, 409, 425, 429, 502, 503, 504)
# About the request itself, so that each one like it would have the same answer (200: an error inside a stream).
_ABOUT_THE_REQUEST: Final = (200, 400, 404, 405, 413, 415, 422, 501)


@dataclass
class Trial:
    """The form that every server took which answered, and what a reader should know."""

    form: RequestForm
    simulated: bool = False
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrialPatience:
    """How long a trial request is waited for; `final`: no later request would be waited for any longer."""

    seconds: float
    final: bool = False


async def try_form(
    http: aiohttp.ClientSession, spec: RunSpec, identity: Identity, form: RequestForm, prompts: Prompts, plan: Plan,
    patience: TrialPatience,
) -> Trial:  # fmt: skip
    """Try the form at every server, and others that the spec allows where it is refused.

    Prompts that are text where they were ids still have to be made (`Trial.form.prompt`).

    Raises:
        UserError: a server redirects, wants a key, takes token ids only where the spec wants text, or the reverse, or
            takes no form that the others take.
        TargetGone: one refuses every form, or gives no answer within a final patience.
    """
    return await _Trying(http, spec, identity, prompts, plan, patience, Trial(form)).all()


@dataclass(frozen=True)
class _Silent:
    """No answer, or one that says nothing of the request."""

    what: str  # happened, as words behind a URL


@dataclass
class _Trying:
    http: aiohttp.ClientSession
    spec: RunSpec
    identity: Identity
    prompts: Prompts
    plan: Plan
    patience: TrialPatience
    trial: Trial
    taken: dict[str, RequestForm] = field(default_factory=dict)  # the latest form that a server took

    async def all(self) -> Trial:
        """Ask all at once, form after form, until one is taken by all that have anything to say."""
        urls = list(self.identity.urls)
        while urls and (silent := await self._agree(urls)):
            urls = [url for url in urls if url not in silent]
        return self.trial

    async def _agree(self, urls: Sequence[str]) -> list[str]:
        """Find the form that these servers take. Those that have nothing to say are returned: the others begin anew."""
        form, tried, refusals = self.trial.form, {self.trial.form}, dict[str, OwnAnswer]()
        while True:
            answers = await self._ask_all(urls, form)
            silent = {url: answer for url, answer in answers.items() if isinstance(answer, _Silent)}
            for url, silence in silent.items():
                self._pass_over(url, silence.what)
            if silent:
                return list(silent)
            refused = {url: a for url, a in answers.items() if isinstance(a, OwnAnswer) and not a.served}
            self.taken |= {url: form for url in urls if url not in refused}
            if not refused:
                self._take(form, refusals)
                return []
            refusals = {**refused, **refusals}
            ways = (adapted(form, self.spec, answer.error, tried) for answer in refused.values())
            following = next((way for way in ways if way is not None), None)
            if following is None:
                url = next(iter(refused))
                self._refused(url, refusals)
                return [url]
            form = following
            tried.add(form)

    async def _ask_all(self, urls: Sequence[str], form: RequestForm) -> dict[str, OwnAnswer | _Silent]:
        """What each server says to the form; the first error ends it."""
        own = OwnRequests(self.spec, self.identity, form, self.prompts.sent_as(form.prompt), self.plan)
        asking = [asyncio.create_task(self._ask(url, own, again=form == self.trial.form)) for url in urls]
        try:
            return dict(zip(urls, await asyncio.gather(*asking), strict=True))
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, url: str, own: OwnRequests, *, again: bool) -> OwnAnswer | _Silent:
        """What a server says to a trial request; a UserError if it redirects, or wants a key."""
        timeout = aiohttp.ClientTimeout(total=self.patience.seconds)
        try:
            answer = await send(self.http, url, own.endpoint, own.typical(), timeout, _HEAR_S)
            if answer.status >= 500 and answer.status not in _PASSING and again:
                # A gateway's refusal of ids, or a moment's weakness.
                answer = await send(self.http, url, own.endpoint, own.typical(), timeout, _HEAR_S)
        except TimeoutError:
            what = f"did not answer a trial request within {timeout.total:g} s"
            if self.patience.final:
                remedy = "Is it still loading its model? settle: none (--no-settle) doesn't wait for it."
                raise TargetGone(what, where=public_name(url), remedy=remedy) from None
            return _Silent(what)
        except aiohttp.ClientError as error:
            return _Silent(f"broke off a trial request: {error}")
        self.trial.simulated |= answer.served and SIMULATED_OWNER in answer.fingerprint
        if answer.status in REDIRECTS:
            raise moved(url, PATHS[own.endpoint], answer.location, answer.status)
        if answer.status in (401, 403):
            raise access_refused(public_name(url), answer.status)
        if answer.status in _PASSING:
            return _Silent(f"answered a trial request with HTTP {answer.status}: {answer.error}")
        return answer

    def _pass_over(self, url: str, what: str) -> None:
        """Leave it to the load to show how the server fares, unless it has answered nothing at all."""
        where = public_name(url)
        if url in self.identity.silent:
            what = f"{what}, after its list of models had failed too"
            raise TargetGone(what, where=where, remedy="Is the server up?")
        self.trial.notices.append(f"{where} {what}")

    def _take(self, form: RequestForm, refusals: dict[str, OwnAnswer]) -> None:
        """Go on with a form that was taken where the first was not."""
        if form == self.trial.form:
            return
        url, refusal = next(iter(refusals.items()))
        where, said = public_name(url), _said(refusal)
        if self.trial.form.prompt == "ids" and form.prompt == "text":
            if self.spec.workload.content.kind == "random":
                raise UserError(
                    f"refuses prompts as token ids ({said}), and random tokens have no other form",
                    where=where, remedy="Use content: corpus (--content corpus), whose prompts can be sent as text.",
                )  # fmt: skip
            if self.spec.target.prompt == "ids":
                raise UserError(
                    f"refuses prompts as token ids ({said}) and takes them as text",
                    where=where,
                    remedy="Set target.prompt: text (--prompt text), or name the server behind the gateway.",
                )
        for url, refusal in refusals.items():
            self.trial.notices.append(
                f"{public_name(url)} refused a trial request ({_said(refusal)}); what it takes is used: {form.text}"
            )
        self.trial.form = form

    def _refused(self, url: str, refusals: dict[str, OwnAnswer]) -> None:
        """Pass over a server that takes no form, where the load may still show how it fares; else raise the error."""
        spec, where, refusal = self.spec, public_name(url), refusals[url]
        endpoint, said = spec.target.endpoint, _said(refusal)
        if url in self.taken:
            other = next(public_name(one) for one in refusals if one != url)
            raise UserError(
                f"takes {self.taken[url].text}, and refuses what {other} takes ({said})", where=where,
                remedy="All servers of a run get requests of one form: measure these in runs of their own.",
            )  # fmt: skip
        if spec.workload.content.kind == "replay" or refusal.status not in _ABOUT_THE_REQUEST:  # others may fare better
            return self._pass_over(url, f"refused a trial request ({said})")
        remedy = f"Does it serve {PATHS[endpoint]} and the model {self.identity.model!r}?"
        if self.identity.models and not self.identity.listed:
            remedy += f" It lists: {_some(self.identity.models)}."
        if spec.target.fields != "auto":
            remedy += f" It gets target.fields: {spec.target.fields}; auto leaves out what it doesn't take."
        what = f"refuses a trial request before the load ({said})"
        raise TargetGone(what, where=f"{where}{PATHS[endpoint]}", remedy=remedy)


def _said(refusal: OwnAnswer) -> str:
    return f"HTTP {refusal.status}: {refusal.error}" if refusal.status != 200 else refusal.error


def _some(names: Sequence[str], most: int = 10) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
