"""Who is let into a run, and which injectors are whose."""

import time
from typing import Any

import pytest

from tailgate.loadgen.control.address import is_private, split_address
from tailgate.loadgen.control.stages import Stage
from tailgate.loadgen.distributed.protocol import PROTOCOL, VERSION
from tailgate.loadgen.distributed.rebuild_plan import check
from tailgate.loadgen.distributed.workers import Liveness, Worker, Workers
from tailgate.workloads.common.errors import UserError


def about(**other: Any) -> dict[str, Any]:
    return {"version": VERSION, "protocol": PROTOCOL, "name": "", "pid": 1, "injectors": 2, "alone_s": 30.0, **other}


def admitted(workers: Workers, client: str, **other: Any) -> Worker:
    answer = workers.admit(client, about(**other))
    assert isinstance(answer, Worker)
    return answer


def test_workers_are_numbered_as_they_come_and_keep_their_names() -> None:
    workers = Workers(3)
    assert [admitted(workers, "x").name, admitted(workers, "y", name="gpu-box").name] == ["worker-1", "gpu-box"]
    assert not workers.complete
    assert admitted(workers, "z").number == 3
    assert workers.complete


def test_a_worker_that_says_hello_again_is_the_same_worker() -> None:
    workers = Workers(1)
    assert admitted(workers, "x") is admitted(workers, "x")


def test_a_workers_name_is_one_short_line_that_no_terminal_obeys() -> None:
    workers = Workers(2)
    name = admitted(workers, "x", name="\x1b[2Kred\n  \tjoined" + "y" * 1000).name
    assert name.startswith("\\x1b[2Kred joinedyyy") and len(name) == 64
    assert admitted(workers, "y", name=" \n").name == "worker-2"


def test_another_version_is_refused_with_both_versions_named() -> None:
    answer = Workers(1).admit("x", about(version="0.0.7"))
    assert isinstance(answer, UserError)
    assert "0.0.7" in answer.what and VERSION in answer.what


def test_one_more_than_expected_is_too_late() -> None:
    workers = Workers(1)
    admitted(workers, "x")
    answer = workers.admit("y", about())
    assert isinstance(answer, UserError) and "has its 1 workers" in answer.what


def test_injectors_are_numbered_through_all_workers() -> None:
    workers = Workers(3)
    for client, injectors in (("x", 2), ("y", 1), ("z", 3)):
        admitted(workers, client, injectors=injectors)
    workers.number_injectors()
    assert [worker.facts()["injectors"] for worker in workers.by_id.values()] == [[0, 1], [2], [3, 4, 5]]
    assert workers.injectors == 6


@pytest.mark.parametrize(
    ("requests", "users", "shares"),
    [
        (None, 9, [None] * 3), (7, 3, [3, 2, 2]), (10, 1, [10, 0, 0]), (10, 4, [5, 3, 2]), (3, 2, [2, 1, 0]),
        (1_000_000_000, 3, [333_333_334, 333_333_333, 333_333_333]),
    ],
)  # fmt: skip
def test_requests_are_shared_out_in_proportion_to_users_without_a_rest(
    requests: int | None, users: int, shares: list[int | None]
) -> None:
    workers = Workers(3)
    clients = [admitted(workers, client).id for client in ("a_1", "b_1", "c_1")]
    found = workers.shares(requests, [Stage(users, 1 << 62)])
    assert [found[client] for client in clients] == shares


def test_a_worker_that_went_away_before_the_run_leaves_its_place_to_another() -> None:
    workers = Workers(2)
    gone, stays = admitted(workers, "x"), admitted(workers, "y")
    workers.forget(gone)
    assert not workers.complete
    again = admitted(workers, "z")
    assert workers.complete and again.name not in (gone.name, stays.name)
    assert [workers.takes_part(client) for client in "xyz"] == [None] * 3
    workers.number_injectors()
    assert [workers.takes_part(client) for client in "xyz"] == [False, True, True]


@pytest.mark.parametrize(
    ("missing_s", "over_s", "given_up"),
    [
        (12.0, -60.0, False), (29.0, -60.0, False), (31.0, -60.0, True),  # it sends on for 30 s
        (9.0, 1.0, False), (9.0, 9.0, True), (5.0, 50.0, False),
    ],
)  # fmt: skip
def test_a_missing_worker_is_waited_for_as_long_as_it_may_send(missing_s: float, over_s: float, given_up: bool) -> None:
    workers = Workers(1)
    admitted(workers, "x").missing_since = time.monotonic() - missing_s
    found = Liveness(workers, lambda _client: False, lambda _text: None).newly_given_up(over_s)
    assert [worker.id for worker in found] == ["x"] * given_up


def test_a_plan_of_another_hash_is_refused_with_both_hashes() -> None:
    check("aa", "aa")
    with pytest.raises(UserError, match=r"is aa, the master's bb") as refused:
        check("aa", "bb")
    assert "same versions" in refused.value.remedy


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("box", ("box", 5557)), ("box:80", ("box", 80)), ("10.0.0.1:5000", ("10.0.0.1", 5000)),
        ("[::1]", ("::1", 5557)), ("[fe80::1]:99", ("fe80::1", 99)),
    ],
)  # fmt: skip
def test_addresses_are_host_and_perhaps_port(text: str, address: tuple[str, int]) -> None:
    assert split_address(text, 5557, "--master") == address


@pytest.mark.parametrize("text", ["", ":80", "box:", "box:http", "box:70000", "box:0", "::1", "[::1", "[::1]80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    if text == "box:":
        assert split_address(text, 5557, "--master") == ("box", 5557)
        return
    with pytest.raises(UserError):
        split_address(text, 5557, "--master")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("*", False), ("10.0.0.1", False), ("x" * 300, False), ("no.invalid", False),
    ],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_private(host) is loopback
