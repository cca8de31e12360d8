"""What becomes of a gate whose runs go wrong: whose fault it was decides. Runs are fabricated, nothing is started."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.kit.command import SIM
from tests.kit.fabricate import Row, fabricate

from tailgate.harness.cli import main
from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.experiments.core import campaign as campaigns
from tailgate.harness.targets.base import TargetGone
from tailgate.reports.verdicts.gate.runs import GateRecord
from tailgate.workloads.common.errors import UserError

POLICY = f"""
baseline: {SIM}
candidate: {SIM}
pairs: 3
extension: null
metrics: {{ttft.p50: 5%}}
spec: {{workload: {{prompt_tokens: 8, output_tokens: 4, arrivals: {{rate: 50/s}}, duration: 2s, warmup: 1s}}}}
"""
Made = Callable[[int, RunSpec, Path], None]


def made(out: Path, spec: RunSpec, jump_ms: float = 0.0, **manifest: Any) -> None:
    """A run that went well, unless the clock stepped."""
    rng = np.random.default_rng(len(str(out)))
    rows = [Row(at=20.0 * n, ttft=100 + rng.normal(), gaps=[20.0] * 3) for n in range(100)]
    fabricate(out, rows, seconds=2.0, plan_hash=f"p{spec.seed}", workload_hash="w", jump_ms=jump_ms, **manifest)


def closed(out: Path, spec: RunSpec, jump_ms: float = 0.0, users: int = 4) -> None:
    """Eight users who are answered after 160 ms, 50 requests a second."""
    made(out, spec, jump_ms, loop="closed", users={"mean": users, "max": users})


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a gate whose n-th run (from 1) is what `make` makes of it; (exit code, verdict or None, its folder).

    Called again it resumes the gate, with n from 1 again.
    """

    def run(policy: str, make: Made, *flags: str) -> tuple[int, dict[str, Any] | None, Path]:
        calls = [0]

        async def execute(spec: RunSpec, out: Path, *_: Any) -> Path:
            calls[0] += 1
            make(calls[0], spec, out)
            return out

        monkeypatch.setattr(campaigns, "execute", execute)
        (tmp_path / "p.yaml").write_text(policy)
        out = tmp_path / "out"
        where = "--resume" if out.exists() else "--out"
        code = main(["gate", "--policy", str(tmp_path / "p.yaml"), where, str(out), "--quiet", "--anyway", *flags])
        file = out / "verdict.json"
        return code, json.loads(file.read_text()) if file.exists() else None, out

    return run


@pytest.mark.parametrize(
    "error",
    [
        UserError("can't be written: No space left on device", where="--out out"),
        UserError("the command failed (exit code 1)", where="target.auth.command"),
        UserError("the load generator's process ended before the run began; see its message above"),
    ],
)
@pytest.mark.parametrize("place", [3, 4])
def test_a_fault_of_our_own_is_no_verdict_on_either_side(gate, capsys, error: UserError, place: int):
    def make(n: int, spec: RunSpec, out: Path) -> None:
        if n == place:
            raise error
        made(out, spec)

    code, verdict, out = gate(POLICY, make)
    assert (code, verdict) == (2, None)
    assert error.what in capsys.readouterr().err
    assert len(GateRecord.load(out).runs) == 2  # the first pair is kept


def test_a_candidate_that_does_not_come_up_again_fails(gate):
    def make(n: int, spec: RunSpec, out: Path) -> None:
        if n == 3:
            raise TargetGone("can't be reached: Connection refused")
        made(out, spec)

    code, verdict, _ = gate(POLICY, make)
    assert (code, verdict["verdict"]) == (1, "FAIL")
    assert "its server did not come up (can't be reached: Connection refused)" in verdict["why"]


def test_a_figure_that_the_first_run_lacks_ends_the_gate_there(gate, capsys):
    """GPUs of a local server can't be told beforehand; nine further runs would not have energy either."""
    policy = POLICY.replace("ttft.p50: 5%", "energy.j_per_output_token: 3%").replace(
        "arrivals: {rate: 50/s}", "users: 4"
    )
    policy = policy.replace(SIM, "http://127.0.0.1:9")
    calls = []

    def make(n: int, spec: RunSpec, out: Path) -> None:
        calls.append(n)
        closed(out, spec)

    code, verdict, _ = gate(policy, make)
    assert (code, verdict, calls) == (2, None, [1])
    assert "has no energy.j_per_output_token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError("can't be written"), 2), (TargetGone("can't be reached"), 2), (KeyboardInterrupt(), 130)],
)
def test_a_gate_that_fails_before_anything_was_measured_leaves_no_folder(gate, error: BaseException, code: int):
    def make(n: int, spec: RunSpec, out: Path) -> None:
        raise error

    assert gate(POLICY, make)[0] == code
    assert not gate(POLICY, make)[2].exists()


class Killed(BaseException):
    """Ends the process there and then, as far as the gate is concerned."""


class TestResume:
    """A gate that was killed in its n-th run and then resumed."""

    SHARES = POLICY.replace("arrivals: {rate: 50/s}, ", "").replace(
        "pairs: 3", "pairs: 3\npoints: {busy: 0.5x, full: closed 8}"
    )

    def either(self, n: int, spec: RunSpec, out: Path) -> None:
        closed(out, spec) if spec.workload.loop == "closed" else made(out, spec)

    def killed_in(self, gate, policy: str, place: int) -> None:
        def make(n: int, spec: RunSpec, out: Path) -> None:
            self.either(n, spec, out)
            if n == place:
                raise Killed

        with pytest.raises(Killed):
            gate(policy, make)

    def told(self, verdict: dict[str, Any]) -> dict[str, Any]:
        """All of a verdict but the time that it took."""
        return verdict | {"spent": verdict["spent"] | {"seconds": None}}

    @pytest.mark.parametrize("place", [1, 2, 6, 13])
    def test_it_says_what_it_would_have_said_and_makes_no_finished_run_again(self, gate, place: int):
        _, whole, out = gate(self.SHARES, self.either)
        shutil.rmtree(out)
        self.killed_in(gate, self.SHARES, place)
        calls = []

        def make(n: int, spec: RunSpec, out: Path) -> None:
            calls.append(out.name)
            self.either(n, spec, out)

        code, verdict, _ = gate(self.SHARES, make)
        assert code == whole["exit_code"] and self.told(verdict) == self.told(whole)
        assert len(calls) == 13 - (place - 1)
        assert [path.name for path in out.glob("*-unfinished*")] == [f"{calls[0]}-unfinished1"]

    def test_repetitions_count_on(self, gate):
        """Pair 1 was late and was measured again; the one repetition that the policy allows is used up by that."""
        policy = f"repeat_invalid: 1\n{POLICY}"

        def late_once(n: int, spec: RunSpec, out: Path) -> None:
            made(out, spec, jump_ms=30.0 if n == 1 else 0.0)
            if n == 5:
                raise Killed

        with pytest.raises(Killed):
            gate(policy, late_once)
        code, verdict, _ = gate(policy, lambda n, spec, out: made(out, spec, jump_ms=30.0))
        assert (code, verdict["verdict"]) == (4, "INVALID")
        assert len(verdict["spent"]["repeated"]) == 1 and verdict["spent"]["repeated"][0].startswith("pair 1 was")

    def test_time_and_money_count_on(self, gate, monkeypatch: pytest.MonkeyPatch):
        clock = [0.0]
        monkeypatch.setattr(campaigns, "time", SimpleNamespace(monotonic=lambda: clock[0]))

        def make(n: int, spec: RunSpec, out: Path) -> None:
            clock[0] += 10.0
            made(out, spec)
            if n == 4 and clock[0] < 100:
                raise Killed

        policy = f"budget: at most 50s\nlaunch: 1s\n{POLICY}".replace("spec: {", "spec: {gpus: {price_per_hour: 360}, ")
        with pytest.raises(Killed):
            gate(policy, make)
        clock[0] = 1000.0  # what lies between costs nothing
        _, verdict, _ = gate(policy, make)
        assert verdict["spent"]["stopped"] == "the time of the budget was spent after 2 pairs"
        assert (verdict["spent"]["seconds"], verdict["spent"]["dollars"]) == (40.0, 4.0)

    def test_a_server_that_was_lost_is_not_given_another_chance(self, gate):
        def make(n: int, spec: RunSpec, out: Path) -> None:
            if n == 3:
                raise TargetGone("can't be reached: Connection refused")
            made(out, spec)

        _, first, _ = gate(POLICY, make)
        _, second, _ = gate(POLICY, lambda n, spec, out: pytest.fail("a run was made"))
        assert self.told(second) == self.told(first) and first["verdict"] == "FAIL"

    def test_it_goes_on_by_the_policy_that_it_began_with(self, gate, capsys):
        self.killed_in(gate, POLICY, 3)
        assert gate(POLICY.replace("pairs: 3", "pairs: 4"), self.either)[0] == 2
        assert "began with another policy.yaml" in capsys.readouterr().err

    def test_a_spec_file_that_has_changed_is_seen(self, gate, tmp_path: Path, capsys):
        spec = "workload: {prompt_tokens: 8, output_tokens: 4, arrivals: {rate: 50/s}, duration: 2s, warmup: 1s}\n"
        policy = f"{POLICY.partition('spec:')[0]}spec: s.yaml\n"
        (tmp_path / "s.yaml").write_text(spec)
        self.killed_in(gate, policy, 3)
        (tmp_path / "s.yaml").write_text(spec.replace("prompt_tokens: 8", "prompt_tokens: 9"))
        assert gate(policy, self.either)[0] == 2
        assert "pair01-1-baseline: was made by another spec" in capsys.readouterr().err

    def test_only_a_campaigns_folder_can_go_on(self, gate, tmp_path: Path, capsys):
        (tmp_path / "out").mkdir()
        assert gate(POLICY, self.either)[0] == 2
        assert "holds no campaign" in capsys.readouterr().err

    def test_a_new_folder_and_stored_runs_do_not_go_with_it(self, gate, capsys):
        self.killed_in(gate, POLICY, 3)
        assert gate(POLICY, self.either, "--out", "elsewhere")[0] == 2
        assert "--resume: goes on in its own folder" in capsys.readouterr().err


class TestShares:
    POLICY = POLICY.replace("arrivals: {rate: 50/s}, ", "").replace(
        "pairs: 3", "pairs: 3\npoints: {busy: 0.5x, full: closed 8}"
    )

    def at_either(self, n: int, spec: RunSpec, out: Path) -> None:
        closed(out, spec) if spec.workload.loop == "closed" else made(out, spec)

    def test_the_baseline_is_measured_again_where_that_failed(self, gate):
        def make(n: int, spec: RunSpec, out: Path) -> None:
            closed(out, spec, jump_ms=30.0) if n == 1 else self.at_either(n, spec, out)

        code, verdict, out = gate(self.POLICY, make)
        assert verdict["verdict"] != "INVALID" and code in (0, 3), verdict["why"]
        assert (out / "rates-full-again1").exists()
        assert "what the baseline carries was measured again" in verdict["spent"]["repeated"][0]

    def test_it_is_invalid_where_it_fails_each_time(self, gate):
        code, verdict, out = gate(self.POLICY, lambda _n, spec, path: closed(path, spec, jump_ms=30.0))
        assert (code, verdict["verdict"]) == (4, "INVALID")
        assert "clock" in verdict["why"] and verdict["advice"]
        assert main(["gate", str(out), "--quiet"]) == 4

    def test_the_load_they_come_to_is_told(self, gate):
        _, verdict, _ = gate(self.POLICY, self.at_either)
        said = next(note for note in verdict["notes"] if note.startswith("busy"))
        told = re.match(r"busy: 0.5x of the ([\d.]+) requests/s .*: arrivals at [\d.]+/s, which plan ([\d.]+)", said)
        carried, planned = map(float, told.groups())
        assert 20 < carried < 60 and planned == pytest.approx(carried / 2, rel=0.02)


class TestBudget:
    def test_a_pair_is_not_measured_again_beyond_it(self, gate, monkeypatch: pytest.MonkeyPatch):
        clock = [0.0]
        monkeypatch.setattr(campaigns, "time", SimpleNamespace(monotonic=lambda: clock[0]))

        def make(n: int, spec: RunSpec, out: Path) -> None:
            clock[0] += 30.0
            made(out, spec, jump_ms=30.0)

        code, verdict, _ = gate(f"budget: at most 100s\nrepeat_invalid: 9\nlaunch: 1s{POLICY}", make)
        assert (code, verdict["verdict"]) == (4, "INVALID")
        assert clock[0] == 60.0  # a second attempt would have ended after 120 s
        assert verdict["spent"]["stopped"] == "the time of the budget was spent: pair 1 could not be measured again"


class TestDollars:
    """Ten seconds a run at $360 an hour: a dollar each."""

    def spent(self, gate, monkeypatch: pytest.MonkeyPatch, policy: str) -> float | None:
        clock = [0.0]
        monkeypatch.setattr(campaigns, "time", SimpleNamespace(monotonic=lambda: clock[0]))

        def make(n: int, spec: RunSpec, out: Path) -> None:
            clock[0] += 10.0
            made(out, spec)

        _, verdict, _ = gate(policy, make)
        return verdict["spent"]["dollars"]

    def priced(self, policy: str) -> str:
        return policy.replace("spec: {", "spec: {gpus: {price_per_hour: 360}, ")

    def test_a_server_that_is_started_for_its_runs_costs_while_they_are_made(self, gate, monkeypatch):
        assert self.spent(gate, monkeypatch, self.priced(POLICY)) == pytest.approx(6.0)

    def test_servers_that_stay_cost_all_the_time(self, gate, monkeypatch):
        assert self.spent(gate, monkeypatch, self.priced(f"restart: never{POLICY}")) == pytest.approx(12.0)

    def test_so_do_those_that_somebody_else_started(self, gate, monkeypatch):
        urls = POLICY.replace(f"baseline: {SIM}", "baseline: http://a").replace(
            f"candidate: {SIM}", "candidate: http://b"
        )
        assert self.spent(gate, monkeypatch, self.priced(urls)) == pytest.approx(12.0)

    def test_one_deployment_on_both_sides_costs_once(self, gate, monkeypatch):
        url = POLICY.replace(SIM, "http://a")
        assert self.spent(gate, monkeypatch, self.priced(url)) == pytest.approx(6.0)

    def test_with_a_price_on_one_side_only_no_sum_is_told(self, gate, monkeypatch):
        one = POLICY.replace(
            f"baseline: {SIM}", f"baseline: {{target: {{sim: {SIM[4:]}}}, gpus: {{price_per_hour: 360}}}}"
        )
        assert self.spent(gate, monkeypatch, one) is None
