"""Three ways in which requests come to be sent, by the plan's clock, by users, by users' own code: made of a job."""

from collections.abc import Callable
from dataclasses import dataclass

from tailgate.loadgen.injector.api.conversation import Conversations
from tailgate.loadgen.injector.api.openai_request import MadeBodies, body_maker, prompt_maker
from tailgate.loadgen.injector.api.request_builder import RequestMaker
from tailgate.loadgen.injector.client_stats import Conduct
from tailgate.loadgen.injector.dispatcher import Dispatcher
from tailgate.loadgen.injector.event_loop import Loop
from tailgate.loadgen.injector.http.endpoint import Endpoint
from tailgate.loadgen.injector.schedule.closed_loop import ClosedLoop
from tailgate.loadgen.injector.schedule.locustfile_loop import Asked
from tailgate.loadgen.injector.schedule.open_loop import OpenLoop
from tailgate.loadgen.injector.schedule.plan_share import Share
from tailgate.loadgen.job import Job


@dataclass(frozen=True)
class Feed:
    """What decides when which request is sent, what makes requests, and what is known of them beforehand."""

    sends: OpenLoop | ClosedLoop | Asked
    maker: RequestMaker | Asked
    class_of: Callable[[int], str]  # of a row's index
    rows: int  # known now


def make_feed(job: Job, loop: Loop, endpoints: list[Endpoint], dispatcher: Dispatcher, conduct: Conduct) -> Feed:
    """The feed of a job.

    Raises:
        UserError: the content doesn't fit the way of asking.
    """
    if job.loop == "asked":
        asked = Asked(endpoints, dispatcher, conduct, job)
        return Feed(asked, asked, asked.class_of, 0)
    maker, share = _request_maker(job, endpoints), Share.read(job)
    if job.loop == "open":
        return Feed(OpenLoop(loop, share, maker, dispatcher, job), maker, share.class_of, len(share))
    return Feed(ClosedLoop(share, maker, dispatcher, conduct, job), maker, share.class_of, len(share))


def _request_maker(job: Job, endpoints: list[Endpoint]) -> RequestMaker:
    """What makes requests of rows; with a memory where sessions send the model's own answers again."""
    if not job.answers:
        return RequestMaker(job, endpoints, body_maker(job))
    prompts = prompt_maker(job)
    bodies = MadeBodies(job, prompts)
    return RequestMaker(job, endpoints, bodies, Conversations(job, prompts, bodies))
