"""What figures hold: axes that show every value, objectives with their names, ratios with the side that is better."""

import math
from dataclasses import replace

import pytest
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.build import build
from tailgate.reports.compare.comparison import compare
from tailgate.reports.compare.runs import load_runs
from tailgate.reports.documents.model import Table, TableCell
from tailgate.reports.documents.plots import primitives as draw
from tailgate.reports.documents.plots.comparison import against_load, forest
from tailgate.reports.documents.plots.run import over_time, percentile_curve
from tailgate.reports.documents.render.markdown import table_lines
from tailgate.reports.documents.run.server import server
from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.metrics.catalogue import COMPARED, metric_of
from tailgate.reports.metrics.timeline import timeline
from tailgate.reports.telemetry.server import PhaseTime, ServerView


class TestAxes:
    def test_a_zero_has_a_place_on_the_axis(self):
        assert draw.log_axis([0.0, 10.0, 200.0]) == {"rangemode": "tozero"}

    @pytest.mark.parametrize(("low", "high"), [(7.0, 46.0), (90.0, 500.0), (1.0, 9000.0), (21.0, 79.0), (16.0, 5e7)])
    def test_a_logarithmic_axis_has_several_ticks_between_its_ends(self, low, high):
        ticks = draw.log_axis([low, high])["tickvals"]
        assert 3 <= sum(low <= tick <= high for tick in ticks) <= 7

    def test_values_that_span_little_are_linear(self):
        assert draw.log_axis([10.0, 12.0, None, math.nan]) == {"rangemode": "normal"}

    def test_a_name_is_cut_after_a_word(self):
        assert draw.label("endpoint lost: connection refused by peer", 30) == "endpoint lost: connection…"
        assert draw.label("x" * 40, 10) == "x" * 9 + "…"


class TestLines:
    def test_a_point_without_neighbours_is_marked(self):
        assert draw.line([1, 2, 3], [None, 5.0, None], "", "--c1")["mode"] == "lines+markers"
        assert draw.line([1, 2, 3], [4.0, 5.0, None], "", "--c1")["mode"] == "lines"


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """A run whose median gap is zero, with objectives."""
    rows = [Row(at=20.0 * i, ttft=100.0 + 37 * i % 60, gaps=[0.0, 0.0, 30.0 + i % 9]) for i in range(400)]
    slo = {"ttft": "p95 < 300ms", "itl": "p99 < 40ms", "good": "ttft < 300ms and tpot < 60ms"}
    path = fabricate(tmp_path_factory.mktemp("plots") / "run", rows, seconds=8.0, spec={"slo": slo})
    build(path)
    return analyse(path)


class TestRun:
    def test_gaps_of_zero_are_within_the_range_of_their_curve(self, bundled):
        figure = percentile_curve(bundled, "itl", "ITL")
        axis = figure.layout["yaxis"]
        curve = next(trace for trace in figure.traces if trace["name"] == "ITL")
        assert min(curve["y"]) == 0.0
        assert axis.get("type") != "log" and axis["range"][0] <= 0.0

    def test_gaps_of_zero_are_on_the_time_axis(self, bundled):
        figure = over_time(bundled, timeline(bundled))
        lines = {trace["name"]: trace for trace in figure.traces}
        median = lines["ITL median, ms"]
        assert 0.0 in median["y"]
        assert figure.layout[f"yaxis{median['yaxis'][1:]}"].get("type") != "log"

    def test_a_curve_marks_the_objective_at_its_percentile(self, bundled):
        figure = percentile_curve(bundled, "ttft", "TTFT")
        (mark,) = [trace for trace in figure.traces if trace["mode"] == "markers"]
        assert (mark["x"], mark["y"]) == ([pytest.approx(20.0)], [300.0])
        assert [note["text"] for note in figure.layout["annotations"]] == ["p95 &lt; 300ms"]

    def test_objectives_are_named_once_on_the_time_axis(self, bundled):
        figure = over_time(bundled, timeline(bundled))
        named = [note["text"] for note in figure.layout["annotations"] if note.get("xanchor") == "right"]
        assert named == ["p95 &lt; 300ms", "p99 &lt; 40ms", "good &lt; 60 ms"]

    def test_no_title_lies_in_a_plot(self, bundled):
        layout = over_time(bundled, timeline(bundled)).layout
        domains = sorted(axis["domain"] for name, axis in layout.items() if name.startswith("yaxis"))
        titles = sorted(note["y"] for note in layout["annotations"] if note["text"].startswith("<b>"))
        assert len(titles) == len(domains)
        # A title hangs from its place; its letters need less than 20 pixels.
        for (_, top), title in zip(domains, titles, strict=True):
            assert (title - top) * (layout["height"] - 48) >= 20

    def test_every_panel_has_a_unit(self, bundled):
        table = over_time(bundled, timeline(bundled)).table
        units = (", ms", "/s", "requests", "%", ", W", ", MHz")
        assert [head for head in table.head[1:] if not any(unit in head for unit in units)] == []


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder, names = tmp_path_factory.mktemp("compare"), []
    for label, slow in (("a", 1.0), ("b", 0.5)):
        for rate in (20.0, 40.0):
            for k in range(2):
                rows = [
                    Row(at=1000.0 * i / rate, ttft=slow * (1 + k / 50) * (80.0 + i % 40), gaps=[slow * 20.0] * 5)
                    for i in range(int(8 * rate))
                ]
                spec = {"workload": {"arrivals": {"rate": rate}}, "slo": {"ttft": "p90 < 110ms", "tpot": "p95 < 30ms"}}
                path = folder / f"r{len(names)}"
                build(fabricate(path, rows, name=label, plan_hash=f"{rate}{k}", workload_hash="w", spec=spec))
                names.append(str(path))
    return compare(load_runs(names))


class TestComparison:
    def test_the_statistic_of_an_objective_is_compared_and_its_limit_drawn(self, comparison):
        assert "tpot.p95" not in {metric.key for metric in COMPARED}
        figure = against_load(comparison, metric_of("tpot.p95"))
        assert [shape["y0"] for shape in figure.layout["shapes"]] == [30.0]
        assert [note["text"] for note in figure.layout["annotations"]] == ["p95 &lt; 30ms"]
        assert not against_load(comparison, metric_of("ttft.p50")).layout["shapes"]

    def test_ratios_have_a_logarithmic_axis_around_one(self, comparison):
        axis = forest(comparison).layout["xaxis"]
        assert axis["type"] == "log" and axis["range"][0] == -axis["range"][1]
        assert 10 ** axis["range"][0] < 0.5

    def test_better_is_left_of_one_for_latencies_and_right_of_it_for_rates(self, comparison):
        figure = forest(comparison)
        sides = [(note["text"].strip(" ◀▶"), note["y"]) for note in figure.layout["annotations"]]
        places, names = figure.layout["yaxis"]["tickvals"], figure.layout["yaxis"]["ticktext"]
        rates = min(place for place, name in zip(places, names, strict=True) if name.startswith("output tokens/s"))
        assert sides == [("better", 0), ("worse", 0), ("worse", rates - 1), ("better", rates - 1)]
        (trace,) = figure.traces
        assert trace["marker"]["color"][0] == "--pass"  # half the latency, in every run
        assert figure.table.rows[0][-1] == "better"


class TestTables:
    def test_a_dash_comes_with_its_reason(self):
        table = Table(["", "x"], [["a", "1"], ["b", TableCell("-")]], dash="nobody knows")
        assert table.dashed == "nobody knows"
        assert "`-`: nobody knows" in table_lines(table)
        assert Table(["", "x"], [["a", "1"]], dash="nobody knows").dashed == ""

    def test_percentiles_of_the_servers_histograms_are_told_as_such(self, tmp_path):
        phases = {"queue": PhaseTime(10, 5.0, (4.0, 2.0, 8.0), (2560.0, 2560.0, None))}
        summary = build(fabricate(tmp_path / "run", [Row(at=0.0)]))
        blocks = server(replace(summary, server=ServerView(phases=phases))).blocks
        table = next(block for block in blocks if isinstance(block, Table) and "histograms" in block.title)
        (_, _, _, p50, p99) = table.rows[0]
        assert (p50.text, p50.below) == ("≈ 4.00", "bucket 2.00 to 8.00")
        assert p99.text == "> 2,560"
