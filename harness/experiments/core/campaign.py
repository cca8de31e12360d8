"""The runs of an experiment: each is made once, in the order in which they are asked for, whatever interrupts them.

    asked for -> finished already? its stored run : server launched or shared -> run -> documents -> written down

An experiment is a procedure that asks for one run after another and decides by what they gave. A campaign that is
resumed goes through the same procedure again: it is given its finished runs instead of making them, and the clock
stands as it stood after each, so that it decides the same until it comes to what is still to be done. So an experiment
must decide by runs, seeds, and this module's clock only.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.experiments.core.estimate import Deployment, dollars
from tailgate.harness.experiments.core.folder import FinishedRun, finished_runs, save_finished, set_aside
from tailgate.harness.load.interrupts import Interrupts
from tailgate.harness.load.listener import Watcher
from tailgate.harness.run.execute import execute
from tailgate.harness.targets.base import Ended, Life, Target, TargetGone
from tailgate.harness.targets.make import make_target
from tailgate.reports.build import build
from tailgate.reports.compare.runs import StoredRun, read_run
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.verdicts.budget import Budget
from tailgate.workloads.common.errors import UserError

Notify = Callable[[str], None]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a run: what was measured is kept."""


class ServerLost(Exception):
    """A server did not come up, or not again: that is a result, not a mistake of the person."""


@dataclass(frozen=True)
class RunRequest:
    """One run to be made."""

    label: str  # its directory's name, one of its own within the campaign
    spec: RunSpec
    deployment: str  # whose server is measured, as the campaign names its deployments
    launch: str | None = None  # runs of a deployment that name the same one share a server; None: one of its own
    alone: bool = True  # servers of other launches are taken down first


class SharedTarget:
    """A deployment as the runs see it: it may stay up over several of them, and it may not come up at all."""

    def __init__(self, inner: Target, stays: bool = True) -> None:
        self._inner = inner
        self.stays = stays  # it goes on until `end`, whatever a run stops
        self.fell = False  # it was launched and did not come up
        self.life: Life | None = inner.life  # of the one launch
        self._urls: tuple[str, ...] | None = None
        self._log_kept = False

    async def start(self) -> tuple[str, ...]:
        """Bring it up, the first time."""
        if self._urls is None:
            try:
                self._urls = await self._inner.start()
            except TargetGone:
                self.fell = True
                raise
        return self._urls

    def processes(self) -> dict[str, int]:
        return self._inner.processes()

    async def ended(self) -> Ended:
        return await self._inner.ended()

    def keep_log(self, run_dir: Path) -> None:
        """The log goes on in the directory of the first run."""
        if not self._log_kept:
            self._inner.keep_log(run_dir)
            self._log_kept = True

    async def stop(self) -> None:
        if not self.stays:
            await self.end()

    async def end(self) -> None:
        await self._inner.stop()


class Campaign:
    """Makes the runs of one experiment in its folder, which `core.folder` made, and keeps account of them.

    `repeats`: how often runs may be made again in all, where their measuring failed.
    """

    def __init__(
        self, folder: Path, deployments: Mapping[str, Deployment], budget: Budget, command: Sequence[str],
        notify: Notify, repeats: int = 0,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.repeated: list[str] = []  # one sentence for each time that runs were made again
        self.stopped = ""  # why nothing more was begun
        self._deployments, self._budget, self._command = deployments, budget, list(command)
        self._notify, self._repeats = notify, repeats
        self._finished = {run.label: run for run in finished_runs(folder)}
        self._servers: dict[tuple[str, str], SharedTarget] = {}
        self._measured: set[str] = set()
        self._seconds = dict.fromkeys(deployments, 0.0)
        self._elapsed_s, self._since = 0.0, time.monotonic()

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[Self]:
        """All of its runs are asked for within this; it leaves no server behind."""
        with Interrupts() as interrupts:
            try:
                yield self
            finally:
                interrupts.hold()
                await self._end_servers(list(self._servers))

    @property
    def seconds(self) -> float:
        """Spent so far, without the time between an interruption and a resumption."""
        return self._elapsed_s + time.monotonic() - self._since

    @property
    def dollars(self) -> float | None:
        """Spent so far; None without a price."""
        return dollars(self._deployments, self._seconds, self.seconds)

    def exhausted(self, more_s: float) -> str:
        """Why nothing further of `more_s` seconds is begun; empty if the budget allows it."""
        limits, seconds, spent = self._budget, self.seconds, self.dollars
        if limits.seconds is not None and seconds + more_s > limits.seconds:
            return "the time of the budget was spent"
        if limits.dollars is not None and spent is not None and spent * (1 + more_s / seconds) > limits.dollars:
            return "the money of the budget was spent"
        return ""

    async def run(self, request: RunRequest) -> StoredRun:
        """One run, its documents written; one that is finished is not made again.

        Raises:
            ServerLost: its server did not come up, although it or another deployment had been measured before.
            Interrupted: the person stopped it.
            UserError: something else is wrong.
        """
        if (finished := self._finished.get(request.label)) is not None:
            self._replay(request, finished)
        else:
            await self._make(request)
        self._measured.add(request.deployment)
        return read_run(self.folder / request.label, request.deployment)

    async def until_valid(
        self,
        what: str,
        make: Callable[[str], Awaitable[Sequence[StoredRun]]],
        fault: Callable[[Sequence[StoredRun]], str],
    ) -> Sequence[StoredRun]:
        """Runs, made again while their measuring failed, as often as that is allowed and paid for.

        `make` gets the end of their labels; `fault` says why measuring failed, or nothing where repeating can't help.
        """
        for attempt in range(self._repeats + 1):
            began = self.seconds
            runs = await make(f"-again{attempt}" if attempt else "")
            problem = fault(runs)
            if not problem or len(self.repeated) >= self._repeats:
                break
            if reason := self.exhausted(self.seconds - began):
                self.stopped = f"{reason}: {what} could not be measured again"
                break
            self.repeated.append(f"{what} was measured again, since its measuring had failed ({problem})")
            self._notify(self.repeated[-1])
        return runs

    def _replay(self, request: RunRequest, finished: FinishedRun) -> None:
        """Stand where the campaign stood after a finished run."""
        if finished.spec != _digest(request.spec):
            raise UserError(
                "was made by another spec than the one that it would be made by now",
                where=str(self.folder / request.label), remedy="Begin a new campaign: its spec has changed.",
            )  # fmt: skip
        self._elapsed_s, self._since = finished.elapsed_s, time.monotonic()
        self._seconds[finished.deployment] += finished.seconds
        if finished.lost:
            raise ServerLost(finished.lost) from TargetGone(finished.lost)

    async def _make(self, request: RunRequest) -> None:
        out = self.folder / request.label
        set_aside(out)
        target = await self._server(request)
        began, lost = time.monotonic(), ""
        try:
            await execute(request.spec, out, self._command, Watcher(), target)
        except TargetGone as error:
            if not self._is_result(request, target):
                raise
            lost = f"its server did not come up ({error.what})"
            raise ServerLost(lost) from error
        finally:
            seconds = time.monotonic() - began
            self._seconds[request.deployment] += seconds
            if lost:
                self._finish(request, seconds, lost)
        await asyncio.to_thread(build, out)
        if Manifest.load(out).state == "interrupted":
            raise Interrupted
        self._finish(request, seconds)

    def _is_result(self, request: RunRequest, target: SharedTarget) -> bool:
        """Whether a server that isn't there says something of the deployment, and not of a wrong command line.

        It was there before, or another deployment is and this one was launched in vain.
        """
        in_vain = target.fell and request.spec.target.kind != "sim" and self._measured - {request.deployment}
        return request.deployment in self._measured or bool(in_vain)

    def _finish(self, request: RunRequest, seconds: float, lost: str = "") -> None:
        self._finished[request.label] = FinishedRun(
            request.label, _digest(request.spec), request.deployment, seconds, self.seconds, lost
        )
        save_finished(self.folder, list(self._finished.values()))

    async def _server(self, request: RunRequest) -> SharedTarget:
        """The target of a run: one of its own, or that of its launch."""
        launch = (request.deployment, request.launch or "")
        if request.alone:
            await self._end_servers([other for other in self._servers if other != launch])
        if request.launch is None:
            return SharedTarget(make_target(request.spec), stays=False)
        return self._servers.setdefault(launch, SharedTarget(make_target(request.spec)))

    async def _end_servers(self, launches: Sequence[tuple[str, str]]) -> None:
        for launch in launches:
            await self._servers.pop(launch).end()


def _digest(spec: RunSpec) -> str:
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
