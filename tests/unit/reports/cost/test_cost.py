"""Costs to the cent: the split adds up to the bill, and only good tokens count at an SLO."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.cost.cost import cost, fit_price_ratio, idle_share, split
from tailgate.reports.cost.prices import price_of
from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.rundir.collect import collect
from tailgate.workloads.common.errors import UserError

# 36 $/h: a window of 10 s costs 10 cents.
GPUS = {"type": "h100-sxm", "count": 4, "price_per_hour": 9.0}


def bill(run_dir, rows, gpus=GPUS, **options):
    slo = options.pop("slo", None)
    spec = {"gpus": gpus} | ({"slo": slo} if slo else {})
    collect(fabricate(run_dir, rows, spec=spec, **options))
    return cost(analyse(run_dir))


def many(n=100, **fields):
    fields = {"gaps": [10.0] * 9, "prompt_tokens": 60} | fields
    return [Row(at=50.0 * i, **fields) for i in range(n)]


def test_the_bill_is_the_price_of_the_steady_window(tmp_path):
    found = bill(tmp_path / "run", many())
    assert (found.usd_per_hour, found.usd) == (36.0, pytest.approx(0.10))


def test_costs_per_million_tokens_and_per_request(tmp_path):
    # 100 requests: 6,000 prompt and 1,000 output tokens for 10 cents
    found = bill(tmp_path / "run", many())
    assert found.per_million_output == pytest.approx(100.0)
    assert found.per_million_total == pytest.approx(0.10 / 7000 * 1e6)
    assert found.per_request == pytest.approx(0.001)


def test_input_and_output_cost_add_up_to_the_bill(tmp_path):
    found = bill(tmp_path / "run", many())
    assert found.split_output == pytest.approx(4 * found.split_input)
    assert (found.split_input * 6000 + found.split_output * 1000) / 1e6 == pytest.approx(found.usd)
    assert found.split_input == pytest.approx(10.0)  # 0.10 / (6000 + 4 * 1000) per token


def test_the_price_ratio_is_the_users_to_state(tmp_path):
    found = bill(tmp_path / "run", many(), GPUS | {"price_ratio": 1})
    assert found.split_input == found.split_output == pytest.approx(0.10 / 7000 * 1e6)


@given(usd=st.floats(0.01, 1e6), tokens_in=st.integers(0, 10**12), out=st.integers(1, 10**12), r=st.floats(0.1, 50))
def test_the_split_always_adds_up_to_the_cent(usd, tokens_in, out, r):
    each_in, each_out = split(usd, tokens_in, out, r)
    assert each_in * tokens_in + each_out * out == pytest.approx(usd, abs=0.005, rel=1e-9)


def test_at_an_attainment_of_80_percent_a_good_token_costs_a_quarter_more(tmp_path):
    rows = [
        row if i % 5 else Row(at=row.at, ttft=900.0, gaps=row.gaps, prompt_tokens=60) for i, row in enumerate(many())
    ]
    found = bill(tmp_path / "run", rows, slo={"good": "ttft < 800ms"})
    assert found.per_million_output_at_slo == pytest.approx(100.0 / 0.8)
    assert found.per_good_request == pytest.approx(0.001 / 0.8)
    assert found.wasted["late"] == pytest.approx(0.2 * found.usd)


def test_classes_share_the_bill_by_their_tokens(tmp_path):
    rows = sorted(many(50, klass="a") + many(50, klass="b", gaps=[10.0] * 19), key=lambda row: row.at)
    found = bill(tmp_path / "run", rows)
    one, two = found.by_class
    # weights 60 + 4 * 10 = 100 and 60 + 4 * 20 = 140 a request
    assert (one.share, two.share) == (pytest.approx(100 / 240), pytest.approx(140 / 240))
    assert one.usd + two.usd == pytest.approx(found.usd)
    assert two.usd_per_million_output == pytest.approx(two.usd / 1000 * 1e6)


def test_money_spent_on_answers_that_failed_is_wasted(tmp_path):
    rows = many(90) + [Row(at=4500.0 + i, gaps=[10.0] * 9, prompt_tokens=60, status="truncated") for i in range(10)]
    found = bill(tmp_path / "run", rows)
    assert found.wasted["failed"] == pytest.approx(found.usd / 10)
    assert found.wasted["late"] == found.wasted["cancelled"] == 0.0


def test_idle_share_needs_a_demand_and_a_capacity(tmp_path):
    assert bill(tmp_path / "a", many()).idle_share is None
    found = bill(tmp_path / "b", many(), GPUS | {"demand_rps": 4, "capacity_rps": 10})
    assert found.idle_share == pytest.approx(0.6)
    assert idle_share(12, 10) == 0.0
    # 4 requests/s of 10 tokens at 1 cent a second
    assert found.usd_per_million_output_at_demand == pytest.approx(0.01 / 40 * 1e6)


def test_the_price_ratio_can_be_fitted_from_mixes():
    import numpy as np

    tokens_in, out = np.array([1e6, 2e6, 1e5, 5e5]), np.array([1e5, 1e5, 4e5, 2e5])
    seconds = 2e-5 * tokens_in + 9e-5 * out
    assert fit_price_ratio(seconds, tokens_in, out) == pytest.approx(4.5)
    assert fit_price_ratio(seconds[:2], tokens_in[:2], out[:2]) is None
    assert fit_price_ratio(seconds, tokens_in, tokens_in) is None  # one mix tells nothing


class TestPrices:
    def test_a_stated_price_wins(self):
        assert price_of({"type": "h100-sxm", "price_per_hour": 2.49}).usd_per_gpu_hour == 2.49

    def test_the_catalogue_says_where_and_when(self):
        found = price_of({"type": "h100-sxm"})
        assert 1 < found.usd_per_gpu_hour < 15
        assert "2026-" in found.source
        assert "https://" in found.source

    def test_the_users_own_file_wins_over_the_catalogue(self, tmp_path, monkeypatch):
        own = tmp_path / "prices.json"
        own.write_text(json.dumps({"prices": [{"gpu": "h100-sxm", "usd_per_gpu_hour": 1.11, "provider": "ours"}]}))
        monkeypatch.setenv("TAILGATE_PRICES", str(own))
        assert price_of({"type": "h100-sxm"}).usd_per_gpu_hour == 1.11
        assert price_of({"type": "l4"}).usd_per_gpu_hour > 0  # not in the own file: the catalogue

    def test_an_unknown_type_is_answered_with_the_nearest(self):
        with pytest.raises(UserError, match="Did you mean h100-sxm"):
            price_of({"type": "h100-smx"})

    def test_a_broken_own_file_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "p.json").write_text('{"prices": [{"gpu": "l4"}]}')
        monkeypatch.setenv("TAILGATE_PRICES", str(tmp_path / "p.json"))
        with pytest.raises(UserError, match=r"TAILGATE_PRICES: .*p\.json: is not a price list"):
            price_of({"type": "l4"})

    def test_without_a_gpu_type_there_is_no_cost(self, tmp_path):
        assert bill(tmp_path / "run", many(5), {"count": 1}) is None


class TestGoodTokens:
    """Answers that began in the warm-up bring tokens into the window: good ones, if they met the conditions."""

    def rows(self, slow=frozenset()):
        # each streams for 2 s; the warm-up is 3 s long
        return [
            Row(
                at=100.0 * i,
                ttft=900.0 if i in slow else 100.0,
                gaps=[100.0] * 20,
                phase="warmup" if i < 30 else "measure",
            )
            for i in range(130)
        ]

    def test_where_all_are_good_output_costs_the_same_at_the_slo(self, tmp_path):
        found = bill(tmp_path / "run", self.rows(), warmup=3.0, seconds=10.0, slo={"good": "ttft < 800ms"})
        assert found.per_million_output_at_slo == pytest.approx(found.per_million_output)
        assert found.per_good_request == pytest.approx(found.per_request)
        assert found.wasted["late"] == 0.0

    def test_a_late_one_of_the_warm_up_wastes_what_it_used_of_the_window(self, tmp_path):
        found = bill(tmp_path / "run", self.rows({29}), warmup=3.0, seconds=10.0, slo={"good": "ttft < 800ms"})
        assert found.per_million_output_at_slo > found.per_million_output
        assert found.wasted["late"] > 0


def test_every_tenants_part_is_in_the_bill_however_many_they_are(tmp_path):
    rows = [Row(at=16.0 * i, gaps=[10.0] * 9, tenant=f"t{i % 40:02d}") for i in range(600)]
    found = bill(tmp_path / "run", rows)
    assert len(found.by_tenant) == 40
    assert sum(one.usd for one in found.by_tenant) == pytest.approx(found.usd)


class TestDemand:
    def test_beyond_the_capacity_the_deployment_serves_its_capacity(self, tmp_path):
        at_most = bill(tmp_path / "a", many(), GPUS | {"demand_rps": 10, "capacity_rps": 10})
        beyond = bill(tmp_path / "b", many(), GPUS | {"demand_rps": 1000, "capacity_rps": 10})
        assert beyond.usd_per_million_output_at_demand == at_most.usd_per_million_output_at_demand
        assert (beyond.served_rps_at_demand, beyond.idle_share) == (10.0, 0.0)

    def test_without_a_stated_capacity_no_more_is_believed_than_the_run_served(self, tmp_path):
        assert bill(tmp_path / "a", many(), GPUS | {"demand_rps": 9}).usd_per_million_output_at_demand is not None
        assert bill(tmp_path / "b", many(), GPUS | {"demand_rps": 11}).usd_per_million_output_at_demand is None


def test_work_for_requests_that_failed_before_a_token_is_unknown_not_free(tmp_path):
    rows = many(90) + [Row(at=4500.0 + i, ttft=None, status="timeout", end_after=500.0) for i in range(10)]
    rows += [Row(at=4600.0 + i, ttft=None, status="rejected", http_status=429) for i in range(5)]
    assert bill(tmp_path / "run", rows).unknown_work == {"failed": 10, "cancelled": 0}


def test_the_bill_says_whose_it_is(tmp_path):
    from tailgate.reports.rundir.manifest import TargetRecord

    target = TargetRecord(
        kind="vllm", model="org/m", server="vllm", version="0.32.0", fingerprint={"a": {"revision": "abc"}}
    )
    found = bill(tmp_path / "run", many(5), name="fp8", target=target)
    assert (found.label, found.model, found.server) == ("fp8", "org/m abc", "vllm 0.32.0")
