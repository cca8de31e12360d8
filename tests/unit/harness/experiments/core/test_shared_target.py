"""One server under several runs of a campaign."""

import asyncio
from pathlib import Path

from tailgate.harness.experiments.core.campaign import SharedTarget


class Target:
    life = None
    started = stopped = 0

    async def start(self):
        self.started += 1
        return ("http://127.0.0.1:1",)

    def keep_log(self, run_dir):
        self.log = [*getattr(self, "log", []), run_dir]

    async def stop(self):
        self.stopped += 1


def test_one_launch_serves_several_runs_until_its_end():
    inner = Target()
    shared = SharedTarget(inner)

    async def scenario():
        for run in ("a", "b", "c"):
            assert await shared.start() == ("http://127.0.0.1:1",)
            shared.keep_log(Path(run))
            await shared.stop()
        assert (inner.started, inner.stopped) == (1, 0)
        await shared.end()

    asyncio.run(scenario())
    assert inner.stopped == 1 and inner.log == [Path("a")]
