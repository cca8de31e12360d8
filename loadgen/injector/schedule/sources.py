"""Where a job's requests come from: the plan's clock, users who ask for the next one, or users' own code."""

from collections.abc import Callable
from dataclasses import dataclass

from tailgate.loadgen.injector.api.conversation import Conversations
from tailgate.loadgen.injector.api.openai_request import MadeBodies, body_maker, prompt_maker
from tailgate.loadgen.injector.api.request_builder import RequestMaker
from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.dispatcher import Dispatcher
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.http.endpoint import Endpoint
from tailgate.loadgen.injector.schedule.closed_loop import ClosedLoop
from tailgate.loadgen.injector.schedule.locustfile_loop import LocustfileLoop
from tailgate.loadgen.injector.schedule.open_loop import OpenLoop
from tailgate.loadgen.injector.schedule.plan_share import PlanShare
from tailgate.loadgen.job import Job


@dataclass(frozen=True)
class RequestSource:
    """What decides when which request is sent, what makes requests, and what is known of them beforehand."""

    schedule: OpenLoop | ClosedLoop | LocustfileLoop
    maker: RequestMaker | LocustfileLoop
    class_of: Callable[[int], str]  # of a row's index
    rows: int  # known now


def make_source(
    job: Job, loop: EventLoop, endpoints: list[Endpoint], dispatcher: Dispatcher, stats: ClientStats
) -> RequestSource:
    schedule: OpenLoop | ClosedLoop
    if job.loop == "locustfile":
        users = LocustfileLoop(endpoints, dispatcher, stats, job)
        return RequestSource(users, users, users.class_of, 0)
    maker, share = _request_maker(job, endpoints), PlanShare.read(job)
    if job.loop == "open":
        schedule = OpenLoop(loop, share, maker, dispatcher, job)
    else:
        schedule = ClosedLoop(share, maker, dispatcher, stats, job)
    return RequestSource(schedule, maker, share.class_of, len(share))


def _request_maker(job: Job, endpoints: list[Endpoint]) -> RequestMaker:
    """What makes requests of rows, with a memory where sessions send the model's own answers again."""
    if not job.answers:
        return RequestMaker(job, endpoints, body_maker(job))
    prompts = prompt_maker(job)
    bodies = MadeBodies(job, prompts)
    return RequestMaker(job, endpoints, bodies.body, Conversations(job, prompts, bodies))
