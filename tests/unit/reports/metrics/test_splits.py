"""Figures by class, tenant, endpoint, prompt length and turn; fairness between tenants."""

from dataclasses import replace

import pytest
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.metrics.breakdown import fairness, splits
from tailgate.reports.rundir.collect import collect
from tailgate.reports.summary.summary import summarize


def split(run_dir, rows, **options):
    collect(fabricate(run_dir, rows, **options))
    analysis = analyse(run_dir)
    return analysis, splits(analysis)


def many(n, **fields):
    return [Row(at=10.0 * i, **fields) for i in range(n)]


def merged(*groups):
    rows = [row for group in groups for row in group]
    return sorted(rows, key=lambda row: row.at)


def test_a_run_of_one_class_has_no_split_by_class(tmp_path):
    _, found = split(tmp_path / "run", many(10))
    assert found == {}


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("class", "klass", ("chat", "batch")),
        ("tenant", "tenant", ("a", "b")),
        ("endpoint", "endpoint", ("http://x", "http://y")),
        ("turn", "turn", (0, 1)),
    ],
)
def test_each_groups_figures_are_of_its_own_requests(tmp_path, name, field, values):
    slow = many(60, ttft=300.0, gaps=[40.0] * 3, **{field: values[1]})
    fast = many(60, ttft=100.0, gaps=[10.0] * 3, **{field: values[0]})
    failed = [Row(at=5.0, status="reset", ttft=None, **{field: values[1]})]
    _, found = split(tmp_path / "run", merged(fast, slow, failed), slo={"good": "ttft < 200ms"})
    by_name = {group.name: group for group in found[name]}
    one, two = (by_name[str(value)] for value in values)
    assert (one.n, one.ok, two.n, two.ok) == (60, 60, 61, 60)
    assert (one.latencies["ttft"].at(50).value, two.latencies["ttft"].at(50).value) == (100.0, 300.0)
    assert (one.itl[0].value, two.itl[0].value) == (10.0, 40.0)
    assert (one.attained, two.attained) == (1.0, 0.0)
    assert two.failed_share == pytest.approx(1 / 61)
    assert (one.output_tokens_per_s, two.output_tokens_per_s) == (24.0, 24.0)


def test_prompt_lengths_fall_into_bands(tmp_path):
    rows = merged(many(20, prompt_tokens=127), many(20, prompt_tokens=128), many(20, prompt_tokens=200_000))
    _, found = split(tmp_path / "run", rows)
    assert [(group.name, group.n) for group in found["prompt_tokens"]] == [
        ("0-127", 20),
        ("128-511", 20),
        ("131072+", 20),
    ]


def test_groups_add_up_to_the_whole(tmp_path):
    rows = merged(*(many(30, tenant=t, gaps=[10.0] * k) for k, t in enumerate("abcde", 1)))
    analysis, found = split(tmp_path / "run", rows)
    assert sum(group.n for group in found["tenant"]) == 150
    total = sum(group.output_tokens_per_s for group in found["tenant"])
    assert total == pytest.approx(analysis.throughput.output_tokens_per_s)


class TestFairness:
    def of(self, tmp_path, rows):
        return fairness(split(tmp_path / "run", rows)[0])

    def test_worst_tenants_p99_is_set_against_the_best_ones(self, tmp_path):
        rows = merged(many(300, tenant="a", ttft=100.0), many(300, tenant="b", ttft=250.0))
        found = self.of(tmp_path, rows)
        assert (found.percentile, found.worst_over_best) == (99.0, 2.5)

    def test_small_samples_are_compared_at_the_median_and_it_says_so(self, tmp_path):
        found = self.of(tmp_path, merged(many(40, tenant="a"), many(40, tenant="b", ttft=200.0)))
        assert (found.percentile, found.worst_over_best) == (50.0, 2.0)

    def test_service_is_set_against_demand(self, tmp_path):
        # both ask for 11 tokens a request; half of b's requests fail
        b = [replace(row, status="reset") if i % 2 else row for i, row in enumerate(many(40, tenant="b"))]
        found = self.of(tmp_path, merged(many(40, tenant="a"), b))
        shares = {share.tenant: share for share in found.shares}
        assert (shares["a"].demand, shares["b"].demand) == (0.5, 0.5)
        assert shares["b"].service == pytest.approx(1 / 3)

    def test_one_tenant_is_not_compared(self, tmp_path):
        assert self.of(tmp_path, many(40)) is None


class TestClasses:
    """Classes with objectives and price tiers of their own."""

    SPEC = {
        "slo": {"good": "ttft < 200ms"},
        "workload": {
            "classes": {
                "chat": {"tier": "premium"},
                "batch": {"tier": "basic", "slo": {"ttft": "p95 < 400ms", "errors": "< 20%"}},
            }
        },
        "gpus": {"type": "l4", "price_per_hour": 3.6},
    }

    def rows(self):
        return merged(many(100, klass="chat", ttft=150.0), many(100, klass="batch", ttft=300.0))

    def test_a_class_is_good_by_its_own_objective(self, tmp_path):
        collect(fabricate(tmp_path / "run", self.rows(), spec=self.SPEC))
        slo = summarize(tmp_path / "run").to_json()["slo"]
        assert slo["attained"] == 1.0  # 300 ms is good for batch, and would not be for chat
        assert slo["good_means_by_class"] == {"batch": ["ttft < 400 ms"]}

    def test_its_objectives_are_judged_over_its_own_requests(self, tmp_path):
        collect(fabricate(tmp_path / "run", self.rows(), spec=self.SPEC))
        summary = summarize(tmp_path / "run").to_json()
        judged = {one["objective"]: one for one in summary["slo"]["thresholds"]}
        assert judged["class batch: ttft: p95 < 400ms"]["value"] == 300.0
        assert judged["class batch: errors: < 20%"]["result"] == "met"
        assert summary["verdict"] == "PASS"

    def test_a_broken_objective_of_one_class_fails_the_run(self, tmp_path):
        spec = self.SPEC | {"workload": {"classes": {"batch": {"slo": {"ttft": "p95 < 250ms"}}}}}
        collect(fabricate(tmp_path / "run", self.rows(), spec=spec))
        summary = summarize(tmp_path / "run").to_json()
        assert summary["exit_code"] == 1
        assert "class batch: ttft: p95 < 250ms" in summary["why"]

    def test_price_tiers_share_the_bill(self, tmp_path):
        collect(fabricate(tmp_path / "run", self.rows(), spec=self.SPEC))
        summary = summarize(tmp_path / "run").to_json()
        assert [one["name"] for one in summary["splits"]["tier"]] == ["basic", "premium"]
        assert sum(one["usd"] for one in summary["cost"]["by_tier"]) == pytest.approx(summary["cost"]["usd"])


def test_how_answers_came_over_the_wire_is_reported(tmp_path):
    collect(fabricate(tmp_path / "run", many(10, gaps=[5.0] * 3, client_coalesced=1)))
    found = summarize(tmp_path / "run").to_json()["streaming"]
    assert (found["arrivals"], found["client_coalesced_share"], found["multi_token_share"]) == (40, 0.25, 0.0)


class TestManyTenants:
    """29 tenants alike, and a small one that waits fifty times as long."""

    def summary(self, tmp_path):
        rows = [Row(at=15.0 * i, gaps=[10.0] * 3, tenant=f"t{i % 29:02d}") for i in range(29 * 20)]
        rows += [Row(at=9000.0 + i, ttft=5000.0, gaps=[10.0] * 3, tenant="tiny") for i in range(6)]
        collect(fabricate(tmp_path / "run", rows))
        return summarize(tmp_path / "run").to_json()

    def test_fairness_sees_all_of_them(self, tmp_path):
        fair = self.summary(tmp_path)["fairness"]
        assert len(fair["shares"]) == 30
        assert (fair["worst_over_best"], fair["too_few"]) == (50.0, 0)
        assert sum(share["demand"] for share in fair["shares"]) == pytest.approx(1.0)

    def test_the_smallest_are_shown_together_and_it_says_so(self, tmp_path):
        found = self.summary(tmp_path)
        groups = found["splits"]["tenant"]
        assert (len(groups), groups[-1]["name"], groups[-1]["stands_for"]) == (24, "7 others", 7)
        assert sum(group["n"] for group in groups) == 29 * 20 + 6
        assert any("split by tenant shows the 7 smallest groups together" in notice for notice in found["notices"])


def test_a_group_says_how_many_requests_its_percentiles_need(tmp_path):
    rows = merged(many(90, klass="a"), many(90, klass="b"))
    collect(fabricate(tmp_path / "run", rows))
    group = summarize(tmp_path / "run").to_json()["splits"]["class"][0]
    assert group["ttft"]["p99"] is None
    assert group["needs"]["ttft"] == {"p99": 299}


def test_a_group_counts_its_failures_as_infinitely_late(tmp_path):
    b = [replace(row, status="reset", ttft=None) if i % 3 == 0 else row for i, row in enumerate(many(120, klass="b"))]
    _, found = split(tmp_path / "run", merged(many(120, klass="a"), b))
    two = next(group for group in found["class"] if group.name == "b")
    assert two.failed_as_inf["ttft"].at(95.0).value == float("inf")
    assert two.latencies["ttft"].at(95.0).value == 100.0
