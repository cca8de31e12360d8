"""The closed loop on one machine: users are sessions, their number follows the stages, their turns keep their order."""

import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.kit.command import command
from tests.kit.machines import Ended, serving, started
from tests.kit.openai import answering

from tailgate.reports.rundir.spool import whole_batches

pytestmark = pytest.mark.alone

SESSIONS = "{turns: 4, think: 0.1, new_tokens: 8}"


def run(folder: Path, url: str, workload: str, *flags: str) -> Ended:
    spec = folder / "spec.yaml"
    spec.write_text(f"workload: {workload}\n")
    process = started(command("run", spec, "--target", url, "--out", folder / "run", "--no-settle", *flags))
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return Ended(folder / "run", process.returncode, out, err, [])


def by_session(ended: Ended) -> list[list[dict[str, Any]]]:
    """Each session's records in order of their turns, with the planned think time."""
    think = {row["index"]: row["think_ns"] for row in ended.plan().to_pylist()}
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in sorted(ended.requests().to_pylist(), key=lambda r: (r["session"], r["turn"])):
        found[record["session"]].append({**record, "think_ns": think[record["index"]]})
    return list(found.values())


def test_users_follow_the_stages_and_concurrency_is_told_as_it_was(exact: Path, tmp_path: Path) -> None:
    with serving(exact, "--ttft-us", "50000") as port:
        ended = run(
            tmp_path, f"http://127.0.0.1:{port}",
            "{prompt_tokens: 8, output_tokens: 1, warmup: 1s,"
            " stages: [{users: 4, for: 2s}, {users: 20, for: 3s, ramp: 2s}, {users: 2, for: 2s}]}",
        )  # fmt: skip
    load = ended.summary["load"]
    # 4 for 2 s; 4, 12 and 20 for a second each; 2 for 2 s.
    assert load["users"]["mean"] == pytest.approx((4 * 2 + 4 + 12 + 20 + 2 * 2) / 7, rel=0.05)
    assert load["users"]["max"] == 20
    assert load["in_flight"]["mean"] == pytest.approx(load["users"]["mean"], rel=0.1)  # nobody thinks
    assert load["loop"] == "closed"
    assert "closed loop" in ended.out and "users (at most 20)" in ended.out
    users = [event["users"] for event in ended.events if event["kind"] == "users"]
    assert users == [4, 20, 2]
    begun = ended.requests()["handed_over_ns"].to_numpy()
    phases = np.array(ended.requests()["phase"].to_pylist())
    assert set(phases[begun < 1e9].tolist()) == {"warmup"}
    assert set(phases[begun >= 1e9].tolist()) == {"measure"}


def test_users_who_are_held_up_for_a_third_of_the_run_make_it_invalid(exact: Path, tmp_path: Path) -> None:
    """Latencies are as exact as ever: the injector never noticed. But the load was not that of eight users."""
    with serving(exact, "--ttft-us", "50000") as port:
        (tmp_path / "spec.yaml").write_text("workload: {prompt_tokens: 8, output_tokens: 1, users: 8, duration: 4s}\n")
        process = started(
            command(
                "run", tmp_path / "spec.yaml", "--target", f"http://127.0.0.1:{port}", "--out", tmp_path / "run",
                "--no-settle",
            )
        )  # fmt: skip
        spool = tmp_path / "run" / "spool" / "injector-0.arrows"
        while not (spool.exists() and any(whole_batches(spool))):
            assert process.poll() is None
            time.sleep(0.02)
        (locust,) = [p for p in psutil.Process(process.pid).children() if "tailgate.loadgen" in p.cmdline()]
        locust.suspend()
        time.sleep(1.3)
        locust.resume()
        out, err = process.communicate(timeout=120)
    ended = Ended(tmp_path / "run", process.returncode, out, err, [])
    assert ended.code == 4
    assert "offered_load" in " ".join(ended.summary["invalid_reasons"])
    assert ended.summary["client"]["turnaround_lag_ms"]["max"] >= 1_200


def test_a_turn_never_starts_before_its_predecessor_has_ended_and_the_user_has_thought(
    exact: Path, tmp_path: Path
) -> None:
    with serving(exact, "--ttft-us", "20000") as port:
        workload = f"{{prompt_tokens: 8, output_tokens: 2, users: 6, duration: 3s, sessions: {SESSIONS}}}"
        ended = run(tmp_path, f"http://127.0.0.1:{port}", workload)
    turns = 0
    for records in by_session(ended):
        assert [record["turn"] for record in records] == list(range(len(records)))
        for before, after in pairwise(records):
            turns += 1
            assert after["handed_over_ns"] >= before["end_ns"] + after["think_ns"] == before["end_ns"] + 100_000_000
    assert turns > 30


def test_in_the_open_loop_a_later_turn_is_scheduled_after_its_predecessors_end_and_think_time(
    exact: Path, tmp_path: Path
) -> None:
    with serving(exact, "--ttft-us", "20000") as port:
        workload = (
            f"{{prompt_tokens: 8, output_tokens: 2, arrivals: {{rate: 10/s}}, duration: 3s, sessions: {SESSIONS}}}"
        )
        ended = run(tmp_path, f"http://127.0.0.1:{port}", workload)
    plan = {row["index"]: row for row in ended.plan().to_pylist()}
    later = 0
    for records in by_session(ended):
        assert records[0]["scheduled_ns"] == plan[records[0]["index"]]["at_ns"]
        for before, after in pairwise(records):
            if after["status"] == "not_sent":
                continue
            later += 1
            assert plan[after["index"]]["at_ns"] is None
            assert after["scheduled_ns"] == before["end_ns"] + after["think_ns"]
    assert later > 20


def test_conversations_may_send_the_models_own_answers_again(tmp_path: Path) -> None:
    with answering(lambda body: [f"answer-{len(body['messages'])}", "it", "is"]) as server:
        workload = (
            "{prompt_tokens: 30, output_tokens: 3, users: 1, requests: 24,"
            " sessions: {turns: 3, think: 0, new_tokens: 5, history: answers}}"
        )
        ended = run(tmp_path, server.url, workload, "--endpoint", "chat", "--natural-output")
    told = [body["messages"] for _, body in server.asked]
    assert len(told) == ended.requests().num_rows == 24
    starts = [messages for messages in told if len(messages) == 1]
    assert len(starts) == 8
    for messages in told:
        roles = [message["role"] for message in messages]
        assert roles == ["user", "assistant", "user", "assistant", "user"][: len(messages)]
        assert [m["content"] for m in messages if m["role"] == "assistant"] == [
            f"answer-{2 * k + 1} it is" for k in range(len(messages) // 2)
        ]
        # The user's own words stay what they were.
        assert messages[0] in [start[0] for start in starts]
    longest = [messages for messages in told if len(messages) == 5]
    assert len(longest) == 8
    for messages in longest:
        assert messages[:3] in told and messages[:1] in told


def test_the_models_answers_can_not_be_sent_again_as_token_ids(tmp_path: Path) -> None:
    with answering(lambda _body: ["x"]) as server:
        workload = (
            "{prompt_tokens: 9, output_tokens: 3, users: 2, requests: 4,"
            " sessions: {turns: 2, history: answers}}"
        )  # fmt: skip
        ended = run(tmp_path, server.url, workload)
    assert ended.code == 2
    assert "prompts are token ids" in ended.err
    assert not server.asked


def test_planned_history_is_the_same_tokens_again(tmp_path: Path) -> None:
    with answering(lambda _body: ["x"] * 4) as server:
        workload = (
            "{prompt_tokens: 70, output_tokens: 4, users: 3, requests: 30, block_tokens: 16,"
            " sessions: {turns: 3, think: 0, new_tokens: 40}}"
        )
        run(tmp_path, server.url, workload)
    prompts = {tuple(body["prompt"]) for _, body in server.asked}
    assert {len(prompt) for prompt in prompts} == {70, 114, 158}
    for prompt in prompts:
        if len(prompt) > 70:
            shorter = len(prompt) - 44
            whole_blocks = shorter // 16 * 16
            assert any(len(p) == shorter and p[:whole_blocks] == prompt[:whole_blocks] for p in prompts)


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ("[{users: 8}]", "for"),
        ("[{users: many, for: 5s}]", "users"),
        ("[{users: 8, for: soon}]", "not a duration"),
        ("[{users: 8, for: 5s, ramp: 6s}]", "longer than the stage"),
        ("[{users: -1, for: 5s}]", "greater than or equal to 0"),
        ("[{users: 8, for: 5s, rampe: 1s}]", "ramp"),
        ("[{users: 0, for: 5s}]", "none of the `stages` has users"),
        ("7", "stages"),
    ],
)
def test_stages_that_can_not_be_read_are_refused_with_their_place(tmp_path: Path, stages: str, told: str) -> None:
    with answering(lambda _body: ["x"]) as server:
        ended = run(tmp_path, server.url, f"{{prompt_tokens: 8, output_tokens: 2, stages: {stages}}}")
    assert ended.code == 2
    assert told in ended.err and "workload" in ended.err
    assert not server.asked
