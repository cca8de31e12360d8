"""GPU memory over a server's life, through the real pynvml, against a library whose memory stands in a file."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.kit.command import free_port
from tests.kit.paths import FAKE_NVML
from tests.kit.paths import SMALL_SERVER as SERVER

from tailgate.harness.targets.base import Life
from tailgate.harness.targets.command import CommandTarget
from tailgate.harness.targets.launch.gpu_memory import MemoryOverLife

GIB = 2**30
SOURCE = FAKE_NVML


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    target = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", target, SOURCE], check=True)
    return target.parent


@pytest.fixture
def using(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], None]:
    """`using(gpu, gib)`: so much of it is in use from now on."""

    def use(gpu: str, gib: float) -> None:
        draft = tmp_path / f"{gpu}.draft"
        draft.write_text(str(int(gib * GIB)))
        os.replace(draft, tmp_path / gpu)

    lines = [f"uuid=GPU-{gpu} name=F power=100 memory={tmp_path / gpu}" for gpu in ("a", "b")]
    (tmp_path / "script").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("FAKE_NVML_SCRIPT", str(tmp_path / "script"))
    monkeypatch.setenv("FAKE_NVML_T0", str(time.time()))
    use("a", 1)
    use("b", 2)
    return use


def lived(gpus: str, meanwhile: Callable[[], None], afterwards: Callable[[asyncio.AbstractEventLoop], None]) -> Life:
    """The life of a server; `meanwhile` is done when it is up, `afterwards` just before it is stopped."""

    async def scenario() -> Life:
        port = free_port()
        command = f"{sys.executable} {SERVER} {port}"
        target = CommandTarget(command, (f"http://127.0.0.1:{port}",), None, {}, 20, gpus=gpus)
        launch = target.launch

        async def loading() -> tuple[str, ...]:
            urls = await launch()
            meanwhile()
            return urls

        target.launch = loading  # type: ignore[method-assign]
        await target.start()
        afterwards(asyncio.get_running_loop())
        await target.stop()
        return target.life

    return asyncio.run(scenario())


def test_what_a_server_takes_is_seen_and_its_end_waits_until_it_is_back(using: Callable[[str, float], None]):
    life = lived("", lambda: using("a", 61), lambda loop: loop.call_later(0.5, using, "a", 1.05) and None)
    seen = {when: used / GIB for when, used in life.vram["GPU-a"].items()}
    assert seen == {
        "total": 80, "before_start": 1, "loaded": 61, "before_stop": 61, "after_stop": pytest.approx(1.05),
    }  # fmt: skip
    assert life.memory_back_s is not None and 0.1 < life.memory_back_s < 3 and not life.notices
    assert life.port_free is True
    assert life.vram["GPU-b"]["loaded"] == life.vram["GPU-b"]["before_start"] == 2 * GIB


def test_memory_that_does_not_come_back_is_said(using: Callable[[str, float], None]):
    life = Life()

    async def scenario() -> None:
        vram = await MemoryOverLife.open("", life)
        assert vram is not None
        await vram.look("before_start")
        using("b", 40)
        await vram.look("before_stop")
        await vram.until_back(within_s=0.3)
        await vram.close()

    asyncio.run(scenario())
    assert life.memory_back_s is None
    (notice,) = life.notices
    assert notice.startswith("GPU GPU-b still had 38.0 GiB more in use than before the start")


def test_only_the_chosen_gpus_are_looked_at(using: Callable[[str, float], None]):
    assert set(lived("1", lambda: None, lambda _: None).vram) == {"GPU-b"}
    assert set(lived("GPU-a", lambda: None, lambda _: None).vram) == {"GPU-a"}


def test_without_nvml_nothing_is_seen_and_nothing_is_said():
    life = lived("", lambda: None, lambda _: None)
    assert (life.vram, life.memory_back_s, life.notices) == ({}, None, [])


def test_a_port_that_is_still_taken_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tailgate.harness.targets.launch.process._KILL_S", 0.2)
    monkeypatch.setattr("tailgate.harness.targets.launch.process.port_is_free", lambda _port: False)
    monkeypatch.setattr("tailgate.harness.targets.launch.launched.port_is_free", lambda _port: False)
    monkeypatch.setattr("tailgate.harness.targets.command.require_free", lambda _port, _where: None)
    life = lived("", lambda: None, lambda _: None)
    assert life.port_free is False and "was still taken" in life.notices[0]
