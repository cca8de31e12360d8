"""How many cores are ours to use: the affinity's, a container's quota, that of the group around it."""

import os
from pathlib import Path

import pytest

from tailgate.harness.host import cores
from tailgate.harness.host.cores import half_of_the_cores, usable_cores


def group(root: Path, name: str, **files: str) -> None:
    folder = root / name.strip("/")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text + "\n")


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def mine(tmp_path: Path, text: str) -> Path:
    (tmp_path / "cgroup").write_text(text + "\n")
    return tmp_path / "cgroup"


@pytest.mark.parametrize(
    ("quota", "found"), [("max 100000", 8.0), ("200000 100000", 2.0), ("50000 100000", 0.5), ("nonsense", 8.0)]
)
def test_a_quota_of_cgroup_v2_bounds_the_affinity(tmp_path: Path, quota: str, found: float) -> None:
    group(tmp_path / "fs", "/a/b", cpu__max=quota)
    assert usable_cores(tmp_path / "fs", mine(tmp_path, "0::/a/b")) == found


def test_the_quota_of_a_group_around_ours_counts(tmp_path: Path) -> None:
    group(tmp_path / "fs", "/a", cpu__max="300000 100000")
    group(tmp_path / "fs", "/a/b", cpu__max="max 100000")
    assert usable_cores(tmp_path / "fs", mine(tmp_path, "0::/a/b")) == 3.0


def test_in_a_container_the_outermost_folder_is_its_own(tmp_path: Path) -> None:
    group(tmp_path / "fs", "/", cpu__max="150000 100000")
    assert usable_cores(tmp_path / "fs", mine(tmp_path, "0::/docker/0123")) == 1.5


def test_a_quota_of_cgroup_v1_counts(tmp_path: Path) -> None:
    group(tmp_path / "fs", "/cpu,cpuacct/x", cpu__cfs_quota_us="400000", cpu__cfs_period_us="100000")
    lines = "5:memory:/x\n4:cpu,cpuacct:/x"
    assert usable_cores(tmp_path / "fs", mine(tmp_path, lines)) == 4.0


@pytest.mark.parametrize(("usable", "injectors"), [(8.0, 4), (3.0, 1), (1.0, 1), (0.5, 1)])
def test_injectors_get_half_of_the_cores_and_at_least_one(
    monkeypatch: pytest.MonkeyPatch, usable: float, injectors: int
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: usable)
    assert half_of_the_cores() == injectors
