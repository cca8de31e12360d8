"""Who is let into a run, and which injectors are whose."""

from typing import Any

import pytest

from loadgen.control.address import split_address
from loadgen.control.fleet import Fleet, Remote
from loadgen.control.protocol import PROTOCOL, VERSION
from loadgen.control.remake import check
from workloads.errors import UserError


def about(**other: Any) -> dict[str, Any]:
    return {"version": VERSION, "protocol": PROTOCOL, "name": "", "pid": 1, "injectors": 2, **other}


def admitted(fleet: Fleet, client: str, **other: Any) -> Remote:
    answer = fleet.admit(client, about(**other))
    assert isinstance(answer, Remote)
    return answer


def test_workers_are_numbered_as_they_come_and_keep_their_names() -> None:
    fleet = Fleet(3)
    assert [admitted(fleet, "x").name, admitted(fleet, "y", name="gpu-box").name] == ["worker-1", "gpu-box"]
    assert not fleet.complete
    assert admitted(fleet, "z").number == 3
    assert fleet.complete


def test_a_worker_that_says_hello_again_is_the_same_worker() -> None:
    fleet = Fleet(1)
    assert admitted(fleet, "x") is admitted(fleet, "x")


def test_another_version_is_refused_with_both_versions_named() -> None:
    answer = Fleet(1).admit("x", about(version="0.0.7"))
    assert isinstance(answer, UserError)
    assert "0.0.7" in answer.what and VERSION in answer.what


def test_one_more_than_expected_is_too_late() -> None:
    fleet = Fleet(1)
    admitted(fleet, "x")
    answer = fleet.admit("y", about())
    assert isinstance(answer, UserError) and "has its 1 workers" in answer.what


def test_injectors_are_numbered_through_all_workers() -> None:
    fleet = Fleet(3)
    for client, injectors in (("x", 2), ("y", 1), ("z", 3)):
        admitted(fleet, client, injectors=injectors)
    fleet.number_injectors()
    assert [remote.facts()["injectors"] for remote in fleet.remotes.values()] == [[0, 1], [2], [3, 4, 5]]
    assert fleet.injectors == 6


@pytest.mark.parametrize(("requests", "shares"), [(None, [None] * 3), (7, [3, 2, 2]), (2, [1, 1, 0])])
def test_a_number_of_requests_is_shared_out_without_a_rest(requests: int | None, shares: list[int | None]) -> None:
    fleet = Fleet(3)
    remotes = [admitted(fleet, client) for client in "xyz"]
    assert [fleet.share_of(remote, requests) for remote in remotes] == shares


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
