"""When sessions start in an open loop, and which class and tenant they are of: groups of arrivals, merged by time.

A group is a set of sessions with common arrivals: those of the classes that share the workload's arrivals by weight, of
a class with arrivals of its own, or the surplus of a tenant's surge. Groups are independent of each other.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from tailgate.workloads.arrivals.process import Arrivals, Process
from tailgate.workloads.arrivals.rate_shapes import Rates, Steps
from tailgate.workloads.arrivals.renewal import Poisson
from tailgate.workloads.arrivals.spec import build
from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.request_classes import RequestClass, by_traffic
from tailgate.workloads.plan.requests import draw
from tailgate.workloads.sampling.random_streams import RandomField, RandomStream
from tailgate.workloads.table.columns import Columns, check_size, concatenate, first_turns

SHARED: Final = "shared"
_MUCH: Final = 1.25
_NEARLY_ALL: Final = 0.9


@dataclass(frozen=True)
class SessionGroup:
    """Arrivals and the classes they are spread over; `tenant` is a tenant's code, or None for all by weight."""

    name: str
    arrivals: Arrivals
    rate: float
    classes: tuple[RequestClass, ...]
    tenant: int | None = None


def groups_of(spec: WorkloadSpec, classes: tuple[RequestClass, ...]) -> list[SessionGroup]:
    groups: list[SessionGroup] = []
    sharing = tuple(request_class for request_class in classes if request_class.weight)
    if sharing and spec.arrivals is not None:
        groups.append(SessionGroup(SHARED, build(spec.arrivals), spec.arrivals.mean_rate() or 0.0, sharing))
    for request_class in classes:
        own = spec.classes[request_class.name].arrivals if request_class.name in spec.classes else None
        if own is not None:
            groups.append(
                SessionGroup(f"class {request_class.name}", build(own), own.mean_rate() or 0.0, (request_class,))
            )
    return groups + _surges(spec, classes, sum(group.rate for group in groups))


def _surges(spec: WorkloadSpec, classes: tuple[RequestClass, ...], rate: float) -> list[SessionGroup]:
    total = sum(tenant.weight for tenant in spec.tenants.values())
    groups = []
    for code, (name, tenant) in enumerate(spec.tenants.items()):
        if tenant.surge is not None:
            begin, end = spec.warmup + tenant.surge.start, spec.warmup + tenant.surge.end
            surplus = rate * tenant.weight / total * (tenant.surge.factor - 1.0)
            window = Steps((0.0, begin, end), (0.0, 1.0, 0.0))
            more = Process(Poisson(), Rates(surplus, (window,)))
            groups.append(SessionGroup(f"surge {name}", more, surplus, by_traffic(spec, classes), code))
    return groups


def span_s(spec: WorkloadSpec, rate: float) -> float:
    """Seconds of warm-up and measured part together, estimated where a number of requests ends them."""
    measured = spec.measured_s()
    ends = [] if measured is None else [measured]
    if spec.requests is not None:
        ends.append(spec.requests / rate)
    return spec.warmup + min(ends)


def started(spec: WorkloadSpec, groups: list[SessionGroup], seed: int, until_s: float, span: float) -> Columns:
    """All requests of the sessions that start before `until_s`, in order of their start.

    First turns have their time, later ones the time after their session's start, or none.
    """
    check_size(int(sum(group.rate for group in groups) * until_s))
    parts, at, tenants = [], [], []
    sessions = 0
    for code, group in enumerate(groups):
        times = group.arrivals.times_ns(partial(RandomStream, seed, "arrivals", group.name), until_s, span)
        ordinals = np.arange(len(times))
        drawn = draw(group.classes, seed, group.name, code, ordinals)
        parts.append(drawn.with_(session=drawn.session + sessions))
        at.append(times)
        tenants.append(
            tenant_codes(spec, seed, group.name, ordinals)
            if group.tenant is None
            else np.full(len(times), group.tenant)
        )
        sessions += len(times)
    columns, at_ns, tenant = concatenate(parts), np.concatenate(at), np.concatenate(tenants)
    # Sessions are numbered by their start; groups in their order where two start at once.
    order = np.argsort(at_ns, kind="stable")
    if len(groups) > 1:
        rank = np.empty(sessions, np.int64)
        rank[order] = np.arange(sessions)
        columns = columns.with_(session=rank[columns.session])
        columns = columns.take(np.argsort(columns.session, kind="stable"))
    start, tenant = at_ns[order][columns.session], tenant[order][columns.session]
    first = columns.turn == 0
    after = np.where(columns.at_ns < 0, columns.at_ns, columns.at_ns + start)
    return columns.with_(at_ns=np.where(first, start, after), tenant_code=tenant)


def notices_of(groups: list[SessionGroup], seed: int, span: float) -> list[str]:
    """A notice for each random rate that had to be scaled by much to have its mean over the run."""
    notices = []
    for group in groups:
        scale = group.arrivals.scaling(partial(RandomStream, seed, "arrivals", group.name), span)
        if scale > _MUCH or scale < 1 / _MUCH:
            suffix = "" if group.name == SHARED else f" ({group.name})"
            notices.append(
                f"the random rate{suffix} came to {1 / scale:.2f} times its mean in {span:,.0f} s and is multiplied by "
                f"{scale:.2f}: bursts are that much {'higher' if scale > 1 else 'lower'} than their law's; run longer"
            )
    return notices


def beginnings(columns: Columns, begin_s: float, end_s: float) -> list[str]:
    """A notice where requests in [begin, end) are far fewer than in the long run, since no session started before 0.

    Estimated for a steady rate from the pauses of sessions alone; slow answers make the share still smaller.
    """
    if end_s <= begin_s:
        return []
    waits_s = np.cumsum(np.where(columns.turn > 0, columns.think_ns, 0)) / 1e9
    after_s = waits_s - waits_s[first_turns(columns.turn)]
    room_s = (end_s - after_s).clip(0) - (begin_s - after_s).clip(0)
    share = float(room_s.mean()) / (end_s - begin_s)
    if share >= _NEARLY_ALL:
        return []
    return [
        f"conversations begin with the run: by their pauses, its measured part is expected to have at most {share:.0%} "
        "of the requests/s that they come to in the long run; a longer warm-up or run comes nearer"
    ]


def tenant_codes(spec: WorkloadSpec, seed: int, group: str, ordinals: Ints) -> Ints:
    """The tenant of each session, by weight."""
    if len(spec.tenants) < 2:
        return np.zeros(len(ordinals), np.int64)
    edges = np.cumsum([tenant.weight for tenant in spec.tenants.values()])
    edges = edges / edges[-1]
    u = RandomField(seed, "tenant", group).uniform(ordinals)
    return np.asarray(np.searchsorted(edges[:-1], u, side="right").astype(np.int64))
