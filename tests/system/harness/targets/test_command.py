"""The life of a server that we start, on small scripts that behave well or badly."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from tests.kit.command import free_port
from tests.kit.paths import SMALL_SERVER

from tailgate.harness.targets.base import TargetGone
from tailgate.harness.targets.command import CommandTarget
from tailgate.harness.targets.launch.process import OwnProcess, port_is_free
from tailgate.workloads.common.errors import UserError

SERVER = """
import http.server, signal, subprocess, sys
port, how = int(sys.argv[1]), sys.argv[2:]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
if "child" in how:
    child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile True: time.sleep(60)"])
    print("child", child.pid, flush=True)
if "stubborn" in how:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("\\x1b[31mlistening\\x1b[0m", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return path


def target(script: Path, port: int, *how: str, timeout_s: float = 20) -> CommandTarget:
    command = f"{sys.executable} {script} {port} {' '.join(how)}"
    return CommandTarget(command, (f"http://127.0.0.1:{port}",), None, {}, timeout_s)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_from_spawn_to_ready_to_nothing_left(script: Path, tmp_path: Path):
    port = free_port()

    async def scenario() -> None:
        server = target(script, port, "child")
        began = time.monotonic()
        assert await server.start() == (f"http://127.0.0.1:{port}",)
        assert server.life is not None
        assert server.life.ready_s == pytest.approx(time.monotonic() - began, abs=0.1)
        pid = server.processes()["server"]
        server.keep_log(tmp_path)
        child = int((tmp_path / "server.log").read_text().split("child ")[1].split()[0])
        assert not gone(pid) and not gone(child)
        await server.stop()
        assert gone(pid) and gone(child) and port_is_free(port)
        assert server.life.stop_s is not None and server.life.stop_s < 5
        assert (server.life.killed, server.life.exit_code) == (False, -signal.SIGTERM)
        assert "listening" in (tmp_path / "server.log").read_text()

    run(scenario)


def test_one_that_ignores_sigterm_is_killed_and_that_is_recorded(script: Path):
    port = free_port()

    async def scenario() -> None:
        server = target(script, port, "stubborn")
        server.grace_s = 0.3
        await server.start()
        pid = server.processes()["server"]
        await server.stop()
        assert server.life is not None
        assert server.life.killed and server.life.exit_code == -signal.SIGKILL and gone(pid)

    run(scenario)


def test_its_death_is_noticed_within_two_seconds_with_its_last_words(script: Path):
    port = free_port()

    async def scenario() -> None:
        server = target(script, port)
        await server.start()
        watching = asyncio.create_task(server.ended())
        os.kill(server.processes()["server"], signal.SIGKILL)
        ended = await asyncio.wait_for(watching, 2)
        assert ended.code == -signal.SIGKILL and "signal 9" in ended.text
        assert ended.log[-1] == "[31mlistening[0m"  # without the control characters
        await server.stop()

    run(scenario)


def test_a_stop_is_not_a_death(script: Path):
    port = free_port()

    async def scenario() -> None:
        server = target(script, port)
        await server.start()
        watching = asyncio.create_task(server.ended())
        await server.stop()
        await asyncio.sleep(0)
        assert not watching.done()
        watching.cancel()

    run(scenario)


def test_a_taken_port_names_who_has_it(script: Path):
    port = free_port()

    async def scenario() -> None:
        first = target(script, port)
        await first.start()
        try:
            with pytest.raises(
                UserError, match=rf"port {port} is taken by python.*\(process {first.processes()['server']}\)"
            ):
                await target(script, port).start()
        finally:
            await first.stop()

    run(scenario)


def test_one_that_ends_before_it_is_ready_is_quoted():
    async def scenario() -> None:
        port = free_port()
        broken = CommandTarget(
            f"{sys.executable} -c \"import sys; print('no such device'); sys.exit(3)\"",
            (f"http://127.0.0.1:{port}",), None, {}, 20,
        )  # fmt: skip
        with pytest.raises(UserError, match=r"(?s)ended before it was ready \(exit code 3\).*no such device"):
            await broken.start()
        assert broken.process is not None
        broken.process.log.unlink()
        await broken.process.stop()

    run(scenario)


def test_one_that_never_answers_is_given_up_and_taken_down():
    async def scenario() -> None:
        port = free_port()
        silent = CommandTarget(
            f'{sys.executable} -c "import time; time.sleep(600)"', (f"http://127.0.0.1:{port}",), None, {}, 0.5
        )
        with pytest.raises(UserError, match=r"not ready within 0\.5 s .*/health"):
            await silent.start()
        pid = silent.processes()["server"]
        await silent.stop()
        assert gone(pid)

    run(scenario)


@pytest.mark.parametrize(
    ("command", "words"), [("/no/such/program x", "can't run /no/such/program"), ("a 'b", "split into words")]
)
def test_a_command_that_cannot_be_run_is_said(command: str, words: str):
    async def scenario() -> None:
        with pytest.raises(UserError, match=words):
            await CommandTarget(command, ("http://127.0.0.1:1",), None, {}, 1).start()

    run(scenario)


def test_a_server_does_not_outlive_the_process_that_started_it(script: Path):
    port = free_port()
    starter = (
        "import asyncio, sys\n"
        "from tailgate.harness.targets.launch.process import OwnProcess\n"
        "async def main():\n"
        f"    p = await OwnProcess.spawn([sys.executable, {str(script)!r}, '{port}'])\n"
        "    print(p.pid, p.log, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )

    async def scenario() -> None:
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", starter, stdout=asyncio.subprocess.PIPE)
        assert parent.stdout is not None
        pid, log = (await parent.stdout.readline()).decode().split()
        watch = os.pidfd_open(int(pid))
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(watch, ended.set)
        parent.kill()
        await asyncio.wait_for(ended.wait(), 10)
        asyncio.get_running_loop().remove_reader(watch)
        os.close(watch)
        await parent.wait()
        Path(log).unlink()

    run(scenario)


def test_only_processes_of_its_own_session_are_its_family(script: Path):
    async def scenario() -> None:
        stranger = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import time; time.sleep(600)", start_new_session=True
        )
        own = await OwnProcess.spawn([sys.executable, str(script), str(free_port()), "child"])
        await own.stop()
        own.log.unlink()
        assert stranger.returncode is None and psutil.pid_exists(stranger.pid)
        stranger.kill()
        await stranger.wait()

    run(scenario)


def test_the_last_fifty_lines_are_fifty_however_long(tmp_path: Path):
    program = "for n in range(80): print(n, 'x' * 1000)"

    async def scenario() -> None:
        own = await OwnProcess.spawn([sys.executable, "-c", program])
        ended = await own.ended()
        assert [line.split()[0] for line in ended.log] == [str(n) for n in range(30, 80)]
        own.log.unlink()

    run(scenario)


def test_a_readiness_url_that_hangs_does_not_outlast_the_patience():
    async def scenario() -> None:
        async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        hanging = await asyncio.start_server(silent, "127.0.0.1", 0)
        ready = f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}/health"
        sleeping = CommandTarget(
            f'{sys.executable} -c "import time; time.sleep(600)"', (f"http://127.0.0.1:{free_port()}",), ready, {}, 1.0
        )
        began = time.monotonic()
        with pytest.raises(TargetGone, match="not ready within 1 s"):
            await sleeping.start()
        assert time.monotonic() - began < 3
        await sleeping.stop()
        hanging.close()

    run(scenario)


def test_a_start_that_the_kernel_killed_hints_at_memory():
    async def scenario() -> None:
        killed = CommandTarget(
            f'{sys.executable} -c "import os; os.kill(os.getpid(), 9)"',
            (f"http://127.0.0.1:{free_port()}",),
            None,
            {},
            20,
        )
        with pytest.raises(TargetGone, match=r"signal 9.*ran out of memory"):
            await killed.start()
        await killed.stop()

    run(scenario)


DETACH = f"""
import subprocess, sys
with open(sys.argv[1], "w") as file:
    server = subprocess.Popen([sys.executable, {str(SMALL_SERVER)!r}, *sys.argv[2:]], start_new_session=True)
    file.write(str(server.pid))
"""
STOP = "import os, sys; print('stopping it'); os.kill(int(open(sys.argv[1]).read()), 15)"


def detached(tmp_path: Path, port: int, stop: bool = True, ready: str | None = None) -> CommandTarget:
    """A server that goes on after the command that started it, as `docker run -d` and `helm install` do."""
    (tmp_path / "detach.py").write_text(DETACH)
    (tmp_path / "stop.py").write_text(STOP)
    return CommandTarget(
        f"{sys.executable} {tmp_path}/detach.py {tmp_path}/pid {port}", (f"http://127.0.0.1:{port}",), ready, {}, 20,
        stop_command=f"{sys.executable} {tmp_path}/stop.py {tmp_path}/pid" if stop else None,
    )  # fmt: skip


async def until_detached(server: CommandTarget) -> None:
    """Its command may end a moment after what it started answers."""
    watching = asyncio.create_task(server.ended())
    async with asyncio.timeout(20):
        while not server.life.detached:
            await asyncio.wait({watching}, timeout=0.01)
    watching.cancel()


def test_a_server_that_goes_on_without_its_command_is_ended_by_the_stop_command(tmp_path: Path):
    port = free_port()

    async def scenario() -> None:
        server = detached(tmp_path, port)
        await server.start()
        await until_detached(server)
        pid = int((tmp_path / "pid").read_text())
        assert list(server.life.phases) == ["server start", "first token"]
        assert server.life.detached and server.processes() == {} and not gone(pid)
        server.keep_log(tmp_path)
        await server.stop()
        assert gone(pid) and port_is_free(port)
        assert (server.life.stop_exit_code, server.life.notices, server.life.port_free) == (0, [], True)
        assert "stopping it" in (tmp_path / "server.log").read_text()

    run(scenario)


def test_its_death_is_noticed_by_its_url_within_two_seconds(tmp_path: Path):
    port = free_port()

    async def scenario() -> None:
        server = detached(tmp_path, port)
        await server.start()
        watching = asyncio.create_task(server.ended())
        await asyncio.wait({watching}, timeout=0.5)
        assert not watching.done()
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        ended = await asyncio.wait_for(watching, 2)
        assert ended.code is None and "can't be reached any more" in ended.text
        (tmp_path / "pid").unlink()
        await server.stop()
        assert server.life.stop_exit_code == 1 and "stop command ended with exit code 1" in server.life.notices[0]

    run(scenario)


def test_a_command_that_ends_well_needs_a_stop_command(tmp_path: Path):
    async def scenario() -> None:
        server = detached(tmp_path, free_port(), stop=False, ready=f"http://127.0.0.1:{free_port()}")
        with pytest.raises(TargetGone, match=r"ended before it was ready \(exit code 0\).*`stop` must say"):
            await server.start()
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        await server.stop()

    run(scenario)


def test_a_stop_command_goes_before_the_signal(tmp_path: Path):
    port = free_port()

    async def scenario() -> None:
        touch = f"{sys.executable} -c \"open('{tmp_path}/stopped', 'w')\""
        server = CommandTarget(
            f"{sys.executable} {SMALL_SERVER} {port}", (f"http://127.0.0.1:{port}",), None, {}, 20, stop_command=touch
        )
        await server.start()
        assert not server.life.detached
        await server.stop()
        assert (tmp_path / "stopped").exists() and server.life.exit_code == -signal.SIGTERM

    run(scenario)


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_a_first_token_is_part_of_the_start(endpoint: str):
    port = free_port()

    async def scenario() -> None:
        command = f"{sys.executable} {SMALL_SERVER} {port}"
        server = CommandTarget(command, (f"http://127.0.0.1:{port}",), None, {}, 20, endpoint=endpoint)
        began = time.monotonic()
        await server.start()
        assert server.life.ready_s == pytest.approx(time.monotonic() - began, abs=0.1)
        assert list(server.life.phases) == ["server start", "first token"]
        await server.stop()

    run(scenario)
