"""Users' own locustfiles: recorded like any other request, judged by their own code, refused in their own words."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.kit.command import command
from tests.kit.machines import Distributed, Ended, killed, started
from tests.kit.openai import Answering, answering
from tests.kit.paths import ROOT

EXAMPLES = ROOT / "examples"
HEAD = "from locust import constant\nfrom tailgate import LLMUser, tag, task\n\n"

ONE = (
    HEAD
    + """
class Asker(LLMUser):
    wait_time = constant(0.02)

    @task
    def ask(self):
        answer = self.client.chat("how many?", max_tokens=8)
        if "seven" not in answer.text:
            answer.fail("no seven")
"""
)


def seven_every_third_time() -> Any:
    count = iter(range(1, 1_000_000))
    return lambda _body: ["it", "is", "seven" if next(count) % 3 == 0 else "six"]


def run(folder: Path, server: Answering, file: Path, *flags: str, **env: str) -> Ended:
    process = started(
        command("run", "--target", server.url, "--locustfile", file, "--out", folder / "run", *flags), **env
    )
    out, err = process.communicate(timeout=120)
    return Ended(folder / "run", process.returncode, out, err, [])


def locustfile(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


def statuses(ended: Ended) -> Counter[tuple[str, str]]:
    records = ended.requests()
    return Counter(zip(records["class"].to_pylist(), records["status"].to_pylist(), strict=True))


def test_an_answer_that_the_users_code_fails_counts_as_an_error_with_its_reason(tmp_path: Path) -> None:
    with answering(seven_every_third_time()) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, ONE), "--users", "3", "--duration", "2s")
    found = statuses(ended)
    total = len(server.asked)
    assert ended.requests().num_rows == total > 30
    assert found["Asker", "ok"] == total // 3
    assert found["Asker", "bad_response"] == total - total // 3
    errors = {error for error in ended.requests()["error"].to_pylist() if error}
    assert errors == {"no seven"}
    (kind,) = ended.summary["errors"]["kinds"]
    assert kind["count"] == ended.summary["load"]["requests"]["bad_response"]
    assert ended.summary["load"]["loop"] == "closed"


def test_requests_are_recorded_like_any_other(tmp_path: Path) -> None:
    with answering(lambda _body: ["one", "two", "three"]) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, ONE), "--users", "2", "--requests", "20")
    records = ended.requests().to_pylist()
    assert len(records) == 20 == len(server.asked)
    turns: Counter[int] = Counter()
    for record in sorted(records, key=lambda r: (r["session"], r["turn"])):
        assert record["turn"] == turns[record["session"]]
        turns[record["session"]] += 1
        assert record["handed_over_ns"] <= record["dispatched_ns"] <= record["sent_ns"] < record["first_token_ns"]
        assert (record["output_tokens"], record["output_tokens_planned"], record["chunks"]) == (3, 8, 3)
        assert record["prompt_tokens"] == record["prompt_tokens_planned"]
    assert len(turns) == 2
    path, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "how many?"}]
    assert (body["model"], body["max_tokens"], body["stream"]) == ("m", 8, True)
    # The plan is what was asked for.
    assert sorted(ended.plan()["index"].to_pylist()) == sorted(record["index"] for record in records)


def test_a_failed_assert_is_an_error_of_the_answer_and_another_exception_an_event(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
class Strict(LLMUser):
    wait_time = constant(0.02)
    @task
    def ask(self):
        answer = self.client.chat("x")
        assert answer.output_tokens == 5, "not five tokens"

class Buggy(LLMUser):
    wait_time = constant(0.02)
    @task
    def ask(self):
        self.client.chat("x")
        {}["nothing here"]
"""
    )
    with answering(lambda _body: ["one"]) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, text), "--users", "2", "--duration", "1s")
    found = statuses(ended)
    assert set(found) == {("Strict", "bad_response"), ("Buggy", "ok")}
    (event,) = [event for event in ended.events if event["kind"] == "locustfile"]
    assert event["text"] == "Buggy: KeyError: 'nothing here'"
    assert "mine.py" in event["where"]


def test_a_request_for_several_answers_is_not_sent(tmp_path: Path) -> None:
    text = (
        "from tailgate import LLMUser, task\n"
        "class Asker(LLMUser):\n"
        "    @task\n"
        "    def ask(self):\n"
        "        self.client.chat('how many?', max_tokens=8)\n"
        "        self.client.chat('how many?', max_tokens=8, n=2)\n"
    )
    with answering(lambda _body: ["one"]) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, text), "--users", "1", "--requests", "5")
    assert len(server.asked) == 5
    assert not any("n" in body for _, body in server.asked)
    assert any("`n` asks for several answers" in event["text"] for event in ended.events)


def test_weights_tags_and_names_of_classes_are_heeded(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
class Often(LLMUser):
    weight = 3
    wait_time = constant(0.05)
    @tag("small")
    @task
    def ask(self):
        self.client.chat("x", kind="renamed")
    @tag("big")
    @task
    def long(self):
        self.client.chat("big")

class Seldom(LLMUser):
    wait_time = constant(0.05)
    @tag("small")
    @task
    def complete(self):
        self.client.complete([1, 2, 3])

class Untagged(LLMUser):
    @task
    def never(self):
        self.client.chat("never")
"""
    )
    with answering(lambda _body: ["one"]) as server:
        flags = ["--users", "8", "--duration", "2s", "--tag", "small"]
        ended = run(tmp_path, server, locustfile(tmp_path, text), *flags)
    found = statuses(ended)
    assert set(found) == {("renamed", "ok"), ("Seldom", "ok")}
    # Six users against two; how often each came round depends on the machine.
    assert 1.5 < found["renamed", "ok"] / found["Seldom", "ok"] < 6
    assert {body.get("prompt") and tuple(body["prompt"]) for _, body in server.asked} == {None, (1, 2, 3)}
    assert {path for path, _ in server.asked} == {"/v1/chat/completions", "/v1/completions"}


def test_a_refused_request_is_told_to_the_users_code(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
class Asker(LLMUser):
    wait_time = constant(0.02)
    @task
    def ask(self):
        answer = self.client.chat("refuse me")
        answer.fail("is an error already")
        self.client.chat(f"told {answer.ok} {answer.status} {answer.http_status} {answer.text!r}")
"""
    )

    def words(body: dict[str, Any]) -> list[str] | None:
        return None if body["messages"][0]["content"] == "refuse me" else ["fine"]

    with answering(words) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, text), "--users", "1", "--requests", "10")
    assert statuses(ended) == {("Asker", "http_error"): 5, ("Asker", "ok"): 5}
    told = {body["messages"][0]["content"] for _, body in server.asked}
    assert told == {"refuse me", "told False http_error 418 ''"}


IMPATIENT = (
    HEAD
    + """
import gevent

class Impatient(LLMUser):
    wait_time = constant(0.01)
    @task
    def ask(self):
        with gevent.Timeout(0.1, False):
            self.client.chat("slow")
        answer = self.client.chat("quick")
        assert answer.text == "quick", f"asked for quick, got {answer.text}"
"""
)

TWO_AT_ONCE = (
    HEAD
    + """
import gevent

class Two(LLMUser):
    wait_time = constant(0.01)
    @task
    def ask(self):
        def one(word):
            answer = self.client.chat(word)
            if answer.text != word:
                answer.fail(f"asked for {word}, got {answer.text}")
        gevent.joinall([gevent.spawn(one, word) for word in ("slow", "quick")])
"""
)


@pytest.mark.parametrize("text", [IMPATIENT, TWO_AT_ONCE])
def test_an_answer_goes_to_who_asked_for_it_and_a_run_ends_that_waits_for_nobody(tmp_path: Path, text: str) -> None:
    def echo(body: dict[str, Any]) -> list[str]:
        word = body["messages"][0]["content"]
        time.sleep(0.3 if word == "slow" else 0.15)
        return [word]

    with answering(echo) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, text), "--users", "2", "--requests", "16")
    assert {status for _, status in statuses(ended)} == {"ok"}, ended.requests()["error"].to_pylist()
    assert ended.requests().num_rows == 16 == len(server.asked)
    # Nobody is waited for till the drain's end (60 s).
    assert ended.manifest["ended_ns"] < 20e9


def test_every_answer_of_a_task_may_be_judged_until_it_ends(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
class Pairs(LLMUser):
    wait_time = constant(0.01)
    @task
    def two(self):
        first, second = self.client.chat("x"), self.client.chat("y")
        if first.text == second.text:
            first.fail("the same")
            first.fail("said twice")
"""
    )
    with answering(lambda _body: ["one"]) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, text), "--users", "1", "--requests", "10")
        code, rows, said = locust(locustfile(tmp_path, text), server.url, "-u", "1", ends_after=10)
    assert statuses(ended) == {("Pairs", "bad_response"): 5, ("Pairs", "ok"): 5}
    assert {error for error in ended.requests()["error"].to_pylist() if error} == {"the same"}
    (chat,) = [row for row in rows if row["method"] == "chat"]
    assert code == 1 and "KeyError" not in said
    assert chat["num_failures"] == pytest.approx(chat["num_requests"] / 2, abs=1)


def test_users_who_crash_in_on_start_are_not_counted(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
import itertools
number = itertools.count()

class Shaky(LLMUser):
    wait_time = constant(0.02)
    def on_start(self):
        if next(number) % 2:
            raise ValueError("can't log in")
    @task
    def ask(self):
        self.client.chat("x")
"""
    )
    with answering(lambda _body: ["one"]) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, text), "--users", "4", "--duration", "2s")
    users = ended.summary["load"]["users"]
    assert users["mean"] == pytest.approx(2.0, abs=0.1)
    assert any("can't log in" in event["text"] for event in ended.events)
    assert any("2.0 users" in notice and "4.0 were planned" in notice for notice in ended.manifest["notices"])


def test_what_a_users_code_fails_counts_as_an_error_for_abort_if(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    file = locustfile(tmp_path, ONE.replace('"seven" not in', '"it" in'))
    with answering(seven_every_third_time()) as server:
        spec.write_text(f"target: {{url: '{server.url}'}}\nabort_if: {{errors: 50%}}\n"
                        f"workload: {{locustfile: {file}, users: 2, duration: 30s}}\n")  # fmt: skip
        process = started(command("run", spec, "--out", tmp_path / "run"))
        out, err = process.communicate(timeout=120)
    ended = Ended(tmp_path / "run", process.returncode, out, err, [])
    assert ended.manifest["state"] == "aborted" and ended.manifest["aborted_by"] == "errors"
    # How many users there were until then is told all the same.
    assert ended.summary["load"]["users"]["max"] == 2


def test_two_workers_run_their_copies_of_the_locustfile(tmp_path: Path) -> None:
    file = locustfile(tmp_path, ONE)
    with answering(seven_every_third_time()) as server:
        flags: list[str | Path] = ["--target", server.url, "--locustfile", file, "--users", "6", "--duration", "2s"]
        with Distributed(tmp_path, flags, workers=2, worker_flags=["--locustfile", str(file)]) as machines:
            ended = machines.ended()
    found = statuses(ended)
    assert sum(found.values()) == len(server.asked) > 50
    assert found["Asker", "ok"] == len(server.asked) // 3
    assert set(ended.requests()["injector"].to_pylist()) == {0, 1}
    assert ended.summary["load"]["users"]["max"] == 6


@pytest.mark.parametrize(("copy", "told"), [(None, "has no copy"), (ONE + "\n# other\n", "is not the master's")])
def test_a_worker_without_the_same_locustfile_is_refused(tmp_path: Path, copy: str | None, told: str) -> None:
    file = locustfile(tmp_path, ONE)
    other = tmp_path / "copy.py"
    other.write_text(copy or "")
    with answering(lambda _body: ["one"]) as server:
        flags: list[str | Path] = ["--target", server.url, "--locustfile", file, "--users", "6", "--duration", "2s"]
        worker_flags = ["--locustfile", str(other)] if copy else []
        with Distributed(tmp_path, flags, workers=1, worker_flags=worker_flags) as machines:
            ended = machines.ended()
    assert ended.code == 2 and ended.workers[0][0] == 2
    assert told in ended.err and told in ended.workers[0][1]
    assert not server.asked


def test_after_kill_9_what_was_asked_is_recovered(tmp_path: Path) -> None:
    with answering(lambda _body: ["one", "seven"]) as server:
        process = started(
            command("run", "--target", server.url, "--locustfile", locustfile(tmp_path, ONE), "--users", "3",
                     "--duration", "60s", "--out", tmp_path / "run")
        )  # fmt: skip
        spool = tmp_path / "run" / "spool" / "injector-0.arrows"
        while not (spool.exists() and spool.stat().st_size > 20_000):
            assert process.poll() is None, process.communicate()
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        killed(process)
        process.communicate()
    report = subprocess.run(command("report", tmp_path / "run", "--json"), capture_output=True, text=True, check=False)
    assert report.returncode == 4, report.stderr
    assert json.loads(report.stdout)["load"]["all_phases"]["ok"] > 10


# --- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told", "not_told"),
    [
        ("x = 1\n", "has no user class", "Traceback"),
        (HEAD + "import no_such_module_at_all\n", "No module named 'no_such_module_at_all'", "loadgen/control"),
        (HEAD + "def f():\n    raise ValueError('mine')\nf()\n", "ValueError: mine", "load_locustfile"),
        ("def broken(:\n", "SyntaxError", "importlib"),
        ("raise SystemExit(3)\n", "SystemExit: 3", "loadgen/control"),
        ("from locust import HttpUser\nclass Web(HttpUser):\n    pass\n", "Web: not an LLMUser", "Traceback"),
        (HEAD + "class Idle(LLMUser):\n    pass\n", "no user class has a task", "Traceback"),
    ],
)
def test_a_locustfile_that_can_not_be_used_says_so_in_its_own_words(
    tmp_path: Path, text: str, told: str, not_told: str
) -> None:
    with answering(lambda _body: ["one"]) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, text), "--users", "1", "--duration", "1s")
    assert ended.code == 2
    assert told in ended.err and "mine.py" in ended.err
    assert not_told not in ended.err
    assert not server.asked


def test_what_is_not_heeded_is_said_and_prints_stay_out_of_the_result(tmp_path: Path) -> None:
    text = """
from locust import LoadTestShape, events
print("PRINTED")

class Shape(LoadTestShape):
    def tick(self):
        return 5, 5

@events.test_start.add_listener
def begin(**_):
    pass
"""
    file = locustfile(tmp_path, text + ONE.replace('"how many?"', "f'{self.host} {self.environment.host}'"))
    with answering(seven_every_third_time()) as server:
        ended = run(tmp_path, server, file, "--users", "1", "--requests", "3", "--json")
    assert "Shape is ignored" in ended.err and "listeners of events.test_start are ignored" in ended.err
    assert json.loads(ended.out)["load"]["loop"] == "closed"
    assert {body["messages"][0]["content"] for _, body in server.asked} == {f"{server.url} {server.url}"}


def test_the_traceback_shows_the_persons_own_lines(tmp_path: Path) -> None:
    text = HEAD + "def helper():\n    return 1 / 0\n\nhelper()\n"
    with answering(lambda _body: ["one"]) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, text), "--users", "1", "--duration", "1s")
    assert "return 1 / 0" in ended.err and "ZeroDivisionError" in ended.err
    assert "exec_module" not in ended.err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--duration", "1s"], "needs `users` or `stages`"),
        (["--users", "1"], "when does the run end"),
        (["--users", "1", "--duration", "1s", "--prompt-tokens", "8"], "exclude each other"),
        (["--users", "1", "--duration", "1s", "--tag", "nowhere"], "has a task with --tag nowhere"),
    ],
)
def test_flags_that_do_not_fit_a_locustfile_are_refused(tmp_path: Path, flags: list[str], told: str) -> None:
    with answering(lambda _body: ["one"]) as server:
        ended = run(tmp_path, server, locustfile(tmp_path, ONE), *flags)
    assert ended.code == 2
    assert told in ended.err


def test_a_locustfile_that_is_not_there_is_named(tmp_path: Path) -> None:
    with answering(lambda _body: ["one"]) as server:
        ended = run(tmp_path, server, tmp_path / "gone.py", "--users", "1", "--duration", "1s")
    assert ended.code == 2
    assert "gone.py" in ended.err and "Traceback" not in ended.err


# --- plain locust -------------------------------------------------------------------------------------


def left_behind(mark: str) -> list[str]:
    """Processes that were started with this in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TG_MARK") == mark:
                found.append(" ".join(process.cmdline()))
    return found


COUNTER = """
import gevent
from locust import events

ended = []

@events.request.add_listener
def count(**_):
    ended.append(1)
    if len(ended) == {ends_after}:
        gevent.spawn(runner.quit)

@events.init.add_listener
def init(environment, **_):
    global runner
    runner = environment.runner
"""


def locust(
    file: Path, url: str, *flags: str, ends_after: int = 1 << 30, **env: str
) -> tuple[int, list[dict[str, Any]], str]:
    """`locust -f FILE`, headless, until so many requests have ended: exit code, rows of statistics, its words."""
    with tempfile.TemporaryDirectory() as folder:
        counter = Path(folder) / "ends_after.py"
        counter.write_text(COUNTER.replace("{ends_after}", str(ends_after)))
        done = subprocess.run(
            [sys.executable, "-m", "locust", "-f", f"{file},{counter}", "--host", url, "--headless", "--json",
             "--loglevel", "WARNING", *flags],
            capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **env},
        )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("[") else [], done.stdout + done.stderr


def test_plain_locust_shows_the_same_requests_and_failures_and_leaves_no_process(tmp_path: Path) -> None:
    mark = f"{os.getpid()}-plain"
    with answering(seven_every_third_time()) as server:
        code, rows, said = locust(
            locustfile(tmp_path, ONE), server.url, "-u", "3", "-r", "3", ends_after=60, TG_MARK=mark
        )
    found = {(row["name"], row["method"]): row for row in rows}
    total = len(server.asked)
    assert code == 1, said  # Locust's own: some requests failed
    chat = found["Asker", "chat"]
    # A user in the midst of a request when the test ends does not come to count it.
    assert total - 3 <= chat["num_requests"] <= total
    assert abs(chat["num_failures"] - (total - total // 3)) <= 3
    assert found["Asker", "TTFT"]["num_requests"] >= chat["num_requests"]
    assert found["Asker", "ITL"]["num_failures"] == 0
    assert not left_behind(mark)


def test_plain_locust_times_every_gap_and_the_answer_up_to_its_last_token(tmp_path: Path) -> None:
    """Three tokens: at 0, 20 and 320 ms; their usage 300 ms later."""
    with answering(lambda _body: ["a", "b", "c"], pauses_s=(0.0, 0.02, 0.3), before_usage_s=0.3) as server:
        _, rows, said = locust(locustfile(tmp_path, ONE), server.url, "-u", "1", ends_after=4)
    assert rows, said
    found = {row["method"]: row for row in rows}
    gaps = {int(ms): count for ms, count in found["ITL"]["response_times"].items()}
    assert sum(gaps.values()) == found["ITL"]["num_requests"] == 2 * found["chat"]["num_requests"]
    # The truth is a floor; what a busy machine adds lies far below the other gap.
    assert sum(count for ms, count in gaps.items() if 15 <= ms < 150) == sum(gaps.values()) / 2
    assert all(300 <= int(ms) < 550 for ms in found["chat"]["response_times"])


def test_plain_locust_without_a_server_says_who_does_not_answer(tmp_path: Path) -> None:
    _, _, said = locust(locustfile(tmp_path, ONE), "http://127.0.0.1:9", "-u", "1", "-t", "2s")
    assert "http://127.0.0.1:9/v1/models: does not tell its models" in said


# --- the documented examples --------------------------------------------------------------------------


def test_the_copilot_example_runs_with_both_commands(tmp_path: Path) -> None:
    with answering(lambda body: ["word"] * int(body["max_tokens"])) as server:
        ended = run(tmp_path, server, EXAMPLES / "copilot.py", "--users", "8", "--duration", "3s")
        code, rows, said = locust(EXAMPLES / "copilot.py", server.url, "-u", "8", "-r", "8", ends_after=200)
    found = statuses(ended)
    assert {kind for kind, _ in found} == {"Developer", "Completer", "review"}
    assert {status for _, status in found} == {"ok"}
    assert code == 0, said
    assert {(row["name"], row["method"]) for row in rows} > {
        ("Developer", "chat"), ("review", "chat"), ("Completer", "completions"), ("Completer", "ITL"),
    }  # fmt: skip


@pytest.mark.parametrize(("answer", "status"), [("[3] 21 units", "ok"), ("21 units", "bad_response")])
def test_the_citations_example_fails_answers_without_a_citation(tmp_path: Path, answer: str, status: str) -> None:
    with answering(lambda _body: answer.split()) as server:
        ended = run(tmp_path, server, EXAMPLES / "citations.py", "--users", "2", "--duration", "1s")
        code, _, said = locust(EXAMPLES / "citations.py", server.url, "-u", "2", "-r", "2", ends_after=2)
    assert set(statuses(ended)) == {("Reader", status)}
    assert code == (0 if status == "ok" else 1), said
