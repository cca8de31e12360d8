"""Comparisons: replicates grouped, the run as the sample, fronts, refusals, documents."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as truth
from tests.kit.fabricate import Row, fabricate

from tailgate.harness.cli.compare import run as command
from tailgate.reports.build import build
from tailgate.reports.compare.comparison import compare, dominated_by
from tailgate.reports.compare.runs import load_runs
from tailgate.reports.compare.verdict import verdict_of
from tailgate.reports.documents.comparison import comparison_document, to_json
from tailgate.reports.documents.render.html import html
from tailgate.reports.documents.render.markdown import markdown
from tailgate.reports.rundir.manifest import TargetRecord
from tailgate.reports.stats.between_runs import ratio, runs_mean
from tailgate.workloads.common.errors import UserError


def one(folder, name, *, slow=1.0, plan="p0", rate=20.0, price=2.0, label="", rows=None, **manifest):
    rows = rows or [
        Row(at=1000.0 * i / rate, ttft=slow * (100 + 37 * i % 60), gaps=[slow * 20.0] * 9)
        for i in range(int(10 * rate))
    ]
    defaults = {
        "name": label or name,
        "plan_hash": plan,
        "workload_hash": "w",
        "spec": {
            "gpus": {"type": "l4", "count": 2, "price_per_hour": price},
            "workload": {"arrivals": {"rate": rate}},
            "target": {"args": {"dtype": label or name}},
        },
        "target": TargetRecord(kind="vllm", fingerprint={"scheduler": {"max_num_seqs": 256, "port": id(name)}}),
    }
    build(fabricate(folder / name, rows, **(defaults | manifest)))
    return str(folder / name)


def compared(*paths, anyway=False):
    return compare(load_runs(paths), anyway)


class TestGrouping:
    def test_runs_of_one_name_are_replicates(self, tmp_path):
        for k in range(3):
            one(tmp_path, f"a{k}", label="a", plan=f"p{k}", slow=1 + k / 100)
        found = compared(f"{tmp_path}/a*", one(tmp_path, "b"))
        assert [(p.label, len(p.runs)) for p in found.points] == [("a", 3), ("b", 1)]

    def test_a_label_may_be_given_to_a_glob(self, tmp_path):
        for k in range(2):
            one(tmp_path, f"x{k}", label="run")
        found = compared(f"fp8={tmp_path}/x*", f"bf16={one(tmp_path, 'y')}")
        assert [(p.label, len(p.runs)) for p in found.points] == [("fp8", 2), ("bf16", 1)]

    def test_loads_of_one_label_are_points_of_their_own(self, tmp_path):
        found = compared(one(tmp_path, "r1", label="a", rate=10.0), one(tmp_path, "r2", label="a", rate=40.0))
        assert [p.name for p in found.points] == ["a @ 10/s", "a @ 40/s"]

    def test_runs_of_one_name_on_different_deployments_are_told_apart_by_their_folders(self, tmp_path):
        spec = {"gpus": {"type": "l4"}, "workload": {"arrivals": {"rate": 20.0}}, "target": {"args": {"dtype": "fp8"}}}
        found = compared(one(tmp_path, "x", label="run"), one(tmp_path, "y", label="run", spec=spec))
        assert [point.label for point in found.points] == ["x", "y"]
        assert "launch.args.dtype" in dict(found.differences)

    def test_one_label_for_different_deployments_is_refused(self, tmp_path):
        for name in ("x0", "x1"):
            one(tmp_path, name)  # each with a dtype of its own
        with pytest.raises(UserError, match=r"labelled fp8 are of different deployments \(launch.args.dtype\)"):
            compared(f"fp8={tmp_path}/x*", f"bf16={one(tmp_path, 'y')}")

    def test_a_run_named_twice_is_one_run(self, tmp_path):
        a = one(tmp_path, "a")
        found = compared(a, f"{a}/", one(tmp_path, "b"))
        assert [len(point.runs) for point in found.points] == [1, 1]

    def test_a_run_that_was_never_summarised_is_worked_out(self, tmp_path):
        path = one(tmp_path, "a")
        (tmp_path / "a" / "summary.json").unlink()
        assert len(compared(path, one(tmp_path, "b")).points) == 2


def exact(*values: float) -> list[tuple[float, float, float]]:
    """Figures of runs without an error of the load generator's own."""
    return [(value, value, value) for value in values]


class TestStatistics:
    def test_replicates_have_an_interval_between_runs_on_logarithms(self):
        found = runs_mean([100.0, 110.0, 121.0])
        assert found.value == pytest.approx(110.0)
        half = truth.t.ppf(0.975, 2) * math.log(1.1) / math.sqrt(3)
        assert (found.low, found.high) == (pytest.approx(110 * math.exp(-half)), pytest.approx(110 * math.exp(half)))

    def test_equal_plans_are_compared_in_pairs_whatever_their_order(self):
        found = ratio(exact(100.0, 200.0, 400.0), exact(440.0, 110.0, 220.0), ["a", "b", "c"], ["c", "a", "b"])
        assert found.how == "paired"
        assert (found.value, found.low, found.high) == (pytest.approx(1.1), pytest.approx(1.1), pytest.approx(1.1))

    def test_other_plans_are_compared_unpaired_as_welch_does(self):
        a, b = [100.0, 104.0, 97.0], [120.0, 118.0, 131.0, 125.0]
        found = ratio(exact(*a), exact(*b), ["a", "b", "c"], ["d", "e", "f", "g"])
        interval = truth.ttest_ind([math.log(x) for x in b], [math.log(x) for x in a], equal_var=False)
        low, high = interval.confidence_interval(0.95)
        assert (found.how, found.low, found.high) == (
            "unpaired",
            pytest.approx(math.exp(low)),
            pytest.approx(math.exp(high)),
        )

    def test_single_runs_have_a_ratio_but_no_interval(self, tmp_path):
        found = compared(one(tmp_path, "a"), one(tmp_path, "b", slow=1.5, plan="p1"))
        metric = found.points[1].ratios["tpot.mean"]
        assert (metric.value, metric.low, metric.how) == (pytest.approx(1.5), None, "single runs")
        assert any("single runs have no interval" in warning for warning in found.warnings)

    def test_there_is_no_ratio_between_different_loads(self, tmp_path):
        found = compared(one(tmp_path, "a", rate=10.0), one(tmp_path, "b", rate=40.0))
        assert found.points[1].ratios == {}
        assert any("a did not run at the load of b @ 40/s" in warning for warning in found.warnings)

    def test_who_drops_its_slow_requests_is_said_to(self, tmp_path):
        def rows(drop):
            slow = {"status": "timeout", "ttft": None} if drop else {"ttft": 5_000.0}
            return [Row(at=50.0 * i, **(slow if i % 10 == 0 else {})) for i in range(200)]

        found = compared(one(tmp_path, "a", rows=rows(drop=False)), one(tmp_path, "b", rows=rows(drop=True)))
        assert any("b @ 20/s failed 10 %" in warning for warning in found.warnings)
        assert found.points[0].figures["ttft_failed_as_inf.p90"].value is not None

    def test_an_edited_summary_is_not_believed(self, tmp_path):
        a, b = one(tmp_path, "a"), one(tmp_path, "b")
        stored = json.loads((tmp_path / "b" / "summary.json").read_bytes())
        true = stored["throughput"]["output_tokens_per_s"]
        stored["throughput"]["output_tokens_per_s"] *= 2
        (tmp_path / "b" / "summary.json").write_text(json.dumps(stored))
        assert compared(a, b).points[1].figures["output_tokens_per_s"].value == pytest.approx(true)


class TestFronts:
    def test_gpus_are_those_that_were_seen_where_none_are_stated(self, tmp_path):
        seen = TargetRecord(kind="url", fingerprint={"gpus": [{"name": "A100"}] * 4})
        spec = {"workload": {"arrivals": {"rate": 20.0}}}
        nobody = TargetRecord(kind="url")
        found = compared(
            one(tmp_path, "a", spec=spec, target=seen), one(tmp_path, "b", spec=spec, target=nobody), anyway=True
        )
        figures = [point.figures for point in found.points]
        assert figures[0]["tokens_per_s_per_gpu"].value == pytest.approx(figures[0]["output_tokens_per_s"].value / 4)
        assert figures[1]["tokens_per_s_per_gpu"].value is None
        assert "different GPUs: (not known), 4 x A100" in found.warnings

    def test_dominated_points_are_named(self, tmp_path):
        found = compared(one(tmp_path, "slow", slow=2.0), one(tmp_path, "fast", slow=1.0, price=2.0))
        speed, cost = found.fronts
        assert speed.dominated_by[0] == 1 or speed.dominated_by[0] is None
        assert [found.points[b].label if b is not None else None for b in cost.dominated_by] == ["fast", None]

    def test_tokens_per_second_are_per_gpu(self, tmp_path):
        found = compared(one(tmp_path, "a"), one(tmp_path, "b"))
        figures = found.points[0].figures
        assert figures["tokens_per_s_per_gpu"].value == pytest.approx(figures["output_tokens_per_s"].value / 2)
        assert figures["tokens_per_s_per_user"].value == pytest.approx(50.0)

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
    def test_a_front_is_what_nothing_beats(self, points):
        beaten = dominated_by(points, (True, False))
        for place, by in enumerate(beaten):
            x, y = points[place]
            better = [p for p in points if p[0] >= x and p[1] <= y and p != (x, y)]
            assert (by is None) == (not better)
            assert by is None or points[by] in better
        assert None in beaten  # something is always on the front

    def test_equal_points_do_not_dominate_each_other(self):
        assert dominated_by([(1, 1), (1, 1)], (True, True)) == [None, None]


class TestDifferences:
    def test_what_differed_is_listed_and_ports_are_not(self, tmp_path):
        found = compared(one(tmp_path, "bf16"), one(tmp_path, "fp8"))
        assert dict(found.differences) == {"launch.args.dtype": {"bf16": "bf16", "fp8": "fp8"}}


class TestRefusals:
    def test_one_run_is_not_a_comparison(self, tmp_path):
        with pytest.raises(UserError, match="only one run"):
            compared(one(tmp_path, "a"))

    def test_nothing_found_names_the_pattern(self, tmp_path):
        with pytest.raises(UserError, match="nowhere"):
            load_runs([f"{tmp_path}/nowhere-*"])

    @pytest.mark.parametrize(
        ("other", "why"),
        [
            ({"workload_hash": "other"}, "different workloads"),
            ({"loop": "closed"}, "open and closed loops"),
            ({"target": TargetRecord(kind="sim", simulated=True)}, "simulated and real"),
            ({"state": "interrupted", "ended_ns": 5_000_000_000}, "INVALID"),
        ],
    )
    def test_runs_that_can_not_be_compared_are_refused_or_compared_loudly(self, tmp_path, other, why):
        paths = one(tmp_path, "a"), one(tmp_path, "b", **other)
        with pytest.raises(UserError, match=why):
            compared(*paths)
        assert any(why in warning for warning in compared(*paths, anyway=True).warnings)

    def test_different_gpus_are_said(self, tmp_path):
        spec = {"gpus": {"type": "t4", "price_per_hour": 1.0}, "workload": {"arrivals": {"rate": 20.0}}}
        found = compared(one(tmp_path, "a"), one(tmp_path, "b", spec=spec))
        assert "different GPUs: 1 x t4, 2 x l4" in found.warnings

    def test_below_saturation_throughput_is_said_to_be_the_loads(self, tmp_path):
        found = compared(one(tmp_path, "a"), one(tmp_path, "b"))
        assert any("load-limited" in warning for warning in found.warnings)


class TestVerdict:
    """The first line: on what each is better or worse than the first, and what can't be told."""

    def sides(self, folder, slow, price=2.0, rows=None, spread=0.004, **more):
        """Three runs a side of plans of their own; those of `fp8` are as slow as that."""
        for k in range(3):
            one(folder, f"bf16-{k}", label="bf16", plan=f"a{k}", slow=1 + spread * k, **more)
            one(folder, f"fp8-{k}", label="fp8", plan=f"b{k}", slow=slow * (1 + spread * k), price=price,
                rows=rows, **more)  # fmt: skip
        return verdict_of(compared(f"{folder}/bf16-*", f"{folder}/fp8-*"))

    def test_it_names_what_is_better_and_what_is_not_told_apart(self, tmp_path):
        rng = np.random.default_rng(0)
        for k in range(3):
            for label, slow in (("bf16", 1.0), ("fp8", 0.8)):
                # One request of fifty is slow, and how slow differs from run to run more than the sides do.
                ttfts = [slow * (100 + i % 7 + k / 9) if i % 50 else rng.uniform(2000, 9000) for i in range(400)]
                rows = [Row(at=25.0 * i, ttft=t, gaps=[slow * (20 + k / 9)] * 9) for i, t in enumerate(ttfts)]
                one(tmp_path, f"{label}-{k}", label=label, plan=f"{label}{k}", rate=40.0, rows=rows,
                    price=2.0 if label == "bf16" else 1.0)  # fmt: skip
        found = verdict_of(compared(f"{tmp_path}/bf16-*", f"{tmp_path}/fp8-*"))
        assert found.startswith("Against bf16: fp8 is better on speed and cost; TTFT p99")
        assert found.endswith("not told apart.")

    def test_it_says_worse(self, tmp_path):
        found = self.sides(tmp_path, 1.5, price=3.0)
        assert found == "Against bf16: fp8 is worse on speed and cost."

    def test_figures_that_disagree_are_named_by_themselves(self, tmp_path):
        rows = [Row(at=50.0 * i, ttft=200.0 + 37 * i % 60, gaps=[10.0] * 9) for i in range(200)]
        found = self.sides(tmp_path, 1.0, rows=rows)
        assert "better on TPOT mean" in found and "worse on TTFT p50" in found and "better on speed" not in found

    def test_what_hardly_differs_is_alike(self, tmp_path):
        found = self.sides(tmp_path, 1.0, spread=0.0001)
        assert found == "Against bf16: fp8 is alike on speed and cost (within 1 %)."

    def test_single_runs_are_not_told_apart(self, tmp_path):
        found = verdict_of(compared(one(tmp_path, "a"), one(tmp_path, "b", slow=2.0, plan="p1")))
        assert found == (
            "Against a: b is not told apart, since one run a side has no interval: make at least two of each."
        )

    def test_who_fails_more_is_not_just_faster(self, tmp_path):
        rows = [
            Row(
                at=50.0 * i,
                **({"status": "timeout", "ttft": None} if i % 10 == 0 else {"ttft": 50.0, "gaps": [9.0] * 9}),
            )
            for i in range(200)
        ]
        assert "10 % of its requests failed, against 0 %" in self.sides(tmp_path, 1.0, rows=rows)

    def test_runs_compared_anyway_have_no_verdict_and_every_invalid_one_is_named(self, tmp_path):
        broken = {"state": "interrupted", "ended_ns": 5_000_000_000}
        paths = [one(tmp_path, "a"), *(one(tmp_path, f"b{k}", label="b", **broken) for k in range(5))]
        with pytest.raises(UserError, match="5 of 6 runs are INVALID") as refused:
            compared(*paths)
        found = verdict_of(compared(*paths, anyway=True))
        assert found.startswith("No verdict, since these runs should not be compared: 5 of 6 runs are INVALID (")
        for k in range(5):
            assert f"b{k}: interrupted" in str(refused.value) and f"b{k}: interrupted" in found

    def test_it_is_the_first_line_of_every_document(self, tmp_path, capsys):
        paths = one(tmp_path, "a"), one(tmp_path, "b", plan="p1")
        comparison = compared(*paths)
        expected = verdict_of(comparison)
        assert to_json(comparison)["verdict"] == expected
        document = comparison_document(comparison)
        assert markdown(document).splitlines()[2] == expected
        assert html(document).index(expected) < html(document).index("</header>")
        command([*paths, "--out", str(tmp_path / "c.html")])
        assert capsys.readouterr().out.splitlines()[0] == expected
        command([*paths, "--out", str(tmp_path / "c.html"), "--quiet"])
        assert capsys.readouterr().out == f"{expected}\n"


class TestDocuments:
    def test_json_has_every_figure_and_ratio(self, tmp_path):
        found = to_json(compared(one(tmp_path, "a"), one(tmp_path, "b", slow=1.25)))
        assert found["schema"] == "tailgate.compare/1"
        assert found["points"][1]["ratios"]["ttft.p50"]["value"] == pytest.approx(1.25)
        assert json.loads(json.dumps(found)) == found

    def test_markdown_stands_alone_and_stays_under_60_kb(self, tmp_path):
        paths = [one(tmp_path, f"r{k}", label=f"config <i>{k}|</i>") for k in range(6)]
        text = markdown(comparison_document(compared(*paths)))
        assert len(text.encode()) < 60_000
        assert "<i>" not in text
        assert "config &lt;i&gt;0\\|&lt;/i&gt;" in text

    def test_the_page_escapes_labels(self, tmp_path):
        evil = "<script>alert(1)</script>"
        page = html(comparison_document(compared(one(tmp_path, "a", label=evil), one(tmp_path, "b"))))
        assert evil not in page
        assert "&lt;script&gt;" in page

    def test_latency_is_drawn_against_load_where_loads_differ(self, tmp_path):
        paths = [one(tmp_path, f"a{rate:g}", label="a", rate=rate) for rate in (10.0, 20.0, 40.0)]
        assert 'id="load-ttft-p50"' in html(comparison_document(compared(*paths)))
        assert 'id="load-ttft-p50"' not in html(comparison_document(compared(paths[0], one(tmp_path, "b", rate=10.0))))


class TestCommand:
    def test_it_writes_the_page_and_prints_json(self, tmp_path, capsys):
        paths = one(tmp_path, "a"), one(tmp_path, "b")
        assert command([*paths, "--out", str(tmp_path / "c.html"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["schema"] == "tailgate.compare/1"
        assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")

    def test_the_table_names_every_configuration(self, tmp_path, capsys):
        command([one(tmp_path, "alpha"), one(tmp_path, "beta", slow=1.2), "--out", str(tmp_path / "c.html")])
        out = capsys.readouterr().out
        assert "alpha @ 20/s" in out
        assert "× 1.200" in out
