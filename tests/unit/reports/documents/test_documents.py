"""Documents against golden files and their own rules: Markdown, JUnit, CSV, terminal, the page.

To write the golden files anew:

    TAILGATE_GOLDEN=write .venv/bin/python -m pytest tests/unit/reports/documents/test_documents.py
"""

import csv
import io
import os
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from tests.kit.fabricate import Row, fabricate

from tailgate.harness.cli.report import run as command
from tailgate.reports.build import build
from tailgate.reports.documents.model import Depth, Document, Figure, FigureRow, Note, Table, section
from tailgate.reports.documents.render.html import html
from tailgate.reports.documents.render.markdown import markdown
from tailgate.reports.documents.render.terminal import print_document, print_in_short
from tailgate.reports.documents.run.write import export, report, run_document
from tailgate.reports.rundir.manifest import TargetRecord
from tailgate.reports.summary.summary import summarize
from tailgate.workloads.common.formatting import dollars, ms, plain

GOLDEN = Path(__file__).parent / "golden"


def golden(name, found):
    path = GOLDEN / name
    if os.environ.get("TAILGATE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    rows = [
        Row(at=25.0 * i, ttft=100.0 + 37 * i % 60, gaps=[20.0] * 9, klass=["chat", "rag"][i % 2]) for i in range(360)
    ]
    rows += [Row(at=9500.0 + i, status="http_error", http_status=500, ttft=None, error="a | b\n<i>") for i in range(1)]
    path = fabricate(
        tmp_path_factory.mktemp("documents") / "20260102T030405Z-demo",
        rows,
        name="demo",
        spec={
            "slo": {"ttft": "p95 < 800ms", "errors": "< 5%", "e2e": "p99.9 < 9s", "good": "ttft < 130ms"},
            "gpus": {"type": "l4", "count": 1, "price_per_hour": 0.8},
        },
        command_line=["tailgate", "run", "demo.yaml"],
        target=TargetRecord(kind="vllm", model="tiny", server="vllm", version="0.32.0", endpoint="chat"),
    )
    build(path)
    return path


def test_the_markdown_is_the_golden_one(run_dir):
    golden("run.md", export(run_dir, summarize(run_dir), "md"))


def test_the_junit_is_the_golden_one(run_dir):
    golden("run.xml", export(run_dir, summarize(run_dir), "junit"))


def test_the_table_on_a_terminal_is_the_golden_one(run_dir):
    console = Console(record=True, width=140, file=io.StringIO(), force_terminal=True, color_system=None)
    print_in_short(run_document(summarize(run_dir)), console)
    golden("run.txt", "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n")


def test_junit_has_a_case_for_each_check_and_objective(run_dir):
    summary = summarize(run_dir)
    suite = ET.fromstring(export(run_dir, summary, "junit"))
    assert len(suite.findall("testcase")) == len(summary.checks) + len(summary.objectives)
    failures = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failures == ["e2e: p99.9 < 9s"]
    assert suite.get("skipped") == "2"


def test_junit_calls_an_invalid_run_an_error(tmp_path):
    run_dir = fabricate(tmp_path / "run", [Row(at=10.0 * i, late=50.0) for i in range(50)])
    summary = build(run_dir)
    suite = ET.fromstring(export(run_dir, summary, "junit"))
    assert [case.get("name") for case in suite if case.find("error") is not None] == ["own_error"]


def test_the_csv_has_a_line_for_each_planned_request(run_dir):
    rows = list(csv.DictReader(io.StringIO(export(run_dir, summarize(run_dir), "csv"))))
    assert len(rows) == 361
    assert (rows[0]["ttft_ms"], rows[0]["e2e_ms"], rows[0]["good"]) == ("100", "280", "true")
    assert (rows[360]["status"], rows[360]["ttft_ms"], rows[360]["error"]) == ("http_error", "", "a | b\n<i>")


def test_markdown_stays_under_60_kb_whatever_the_run_says(tmp_path):
    rows = [
        Row(at=float(i), status="http_error", http_status=400 + i % 50, error="x" * 500, ttft=None) for i in range(200)
    ]
    slo = {"ttft": [f"p{q} < {q}ms" for q in range(1, 99)] * 20}
    run_dir = fabricate(tmp_path / "run", [*rows, Row(at=300.0)], slo=slo, notices=["n" * 500] * 50)
    text = export(run_dir, build(run_dir), "md")
    assert len(text.encode()) <= 60_000
    assert text.endswith("(cut here: see report.html)\n")


def test_the_same_run_makes_the_same_page(run_dir):
    from tailgate.reports.metrics.analysis import analyse

    first = report(summarize(run_dir), analyse(run_dir))
    assert report(summarize(run_dir), analyse(run_dir)) == first


def test_a_page_holds_no_address_to_load_from(run_dir):
    page = (run_dir / "report.html").read_text()
    for loader in ('<link rel="stylesheet"', "src=", "@import", "url("):
        assert loader not in page.split('<script type="text/plain"')[0]
    assert "default-src 'none'" in page


def test_an_invalid_run_says_so_above_everything(tmp_path):
    run_dir = fabricate(tmp_path / "run", [Row(at=10.0 * i, late=50.0) for i in range(50)])
    build(run_dir)
    page = (run_dir / "report.html").read_text()
    assert page.index("INVALID: do not use these figures") < page.index("<header>")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_run_of_hardly_any_requests_has_a_report(tmp_path, count):
    summary = build(fabricate(tmp_path / "run", [Row(at=10.0 * i, gaps=[5.0]) for i in range(count)]))
    assert summary.verdict == ("PASS" if count else "FAIL")
    assert (tmp_path / "run" / "report.html").exists()


def test_a_run_where_everything_failed_has_a_report(tmp_path):
    rows = [Row(at=10.0 * i, status="connect_error", http_status=None, ttft=None, error="refused") for i in range(50)]
    summary = build(fabricate(tmp_path / "run", rows))
    assert summary.exit_code == 1
    assert summary.errors.kinds[0].example["error"] == "refused"


def test_a_closed_loop_is_labelled_as_one(tmp_path):
    rows = [Row(at=100.0 * i, gaps=[5.0] * 4) for i in range(90)]
    run_dir = fabricate(tmp_path / "run", rows, loop="closed")
    assert build(run_dir).load.loop == "closed"
    page = (run_dir / "report.html").read_text()
    assert "Closed loop" in page
    assert "(closed loop)" in page


class TestCommand:
    def test_the_exit_code_is_the_verdicts(self, run_dir, capsys):
        assert command([str(run_dir)]) == 3
        assert "INCONCLUSIVE" in capsys.readouterr().out

    def test_json_is_the_summary_and_nothing_else(self, run_dir, capsys):
        import json

        command([str(run_dir), "--json"])
        assert json.loads(capsys.readouterr().out) == json.loads((run_dir / "summary.json").read_text())

    def test_quiet_prints_the_verdict_alone(self, run_dir, capsys):
        command([str(run_dir), "--quiet"])
        (line,) = capsys.readouterr().out.splitlines()
        assert line.split("  ")[0] in ("PASS", "FAIL", "INCONCLUSIVE", "INVALID")

    def test_a_folder_that_is_no_run_is_said(self, tmp_path):
        from tailgate.workloads.common.errors import UserError

        with pytest.raises(UserError, match=r"not a run directory"):
            command([str(tmp_path)])
        with pytest.raises(UserError, match=r"no such run directory"):
            command([str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (1234567.0, "1,234,567"),
        (0.00002828, "0.00002828"),
        (12.345, "12.35"),
        (99.996, "100"),
        (None, "-"),
    ],
)
def test_numbers_have_four_digits_and_no_exponent(value, said):
    assert plain(value) == said


def test_latencies_and_amounts_are_said_like_people_do():
    assert [ms(v) for v in (None, "inf", 0.123, 12.34, 123.4, 12345.6)] == [
        "-",
        "∞",
        "0.12",
        "12.34",
        "123.4",
        "12,346",
    ]
    assert [dollars(v) for v in (None, 12.345, 0.1234567)] == ["", "$12.35", "$0.1235"]


def test_foreign_text_in_a_table_is_text():
    page = html(Document("<t>", "<h1>x", [section("<h2>x", Table(["<th>x"], [["<td>x", "\"'<&>"]]))]))
    for foreign in ("<t>", "<h1>x", "<h2>x", "<th>x", "<td>x", "\"'<&>"):
        assert foreign not in page
    assert "&#34;&#39;&lt;&amp;&gt;" in page


def on_a_terminal(document):
    console = Console(record=True, width=140, file=io.StringIO())
    print_document(document, console)
    return console.export_text()


def test_each_part_is_shown_where_its_depth_says():
    document = Document("t", "h", [section("s", *(Note(f"<{depth.name}>", depth=depth) for depth in Depth))])
    page, text, lines = html(document), markdown(document), on_a_terminal(document)
    assert [f"&lt;{depth.name}&gt;" in page for depth in Depth] == [False, True, True, True]
    assert [f"&lt;{depth.name}&gt;" in text for depth in Depth] == [True, True, True, False]
    assert text.index("<details>") < text.index("FOLDED") < text.index("</details>")
    assert [f"<{depth.name}>" in lines for depth in Depth] == [True, True, False, False]


def test_a_figure_is_a_line_of_characters_where_nothing_can_be_drawn():
    figure = Figure("k", "title", "caption", [], {}, Table(["x"], [["1"]]), [("name", "▁▃█")])
    document = Document("t", "h", [section("s", FigureRow([figure]))])
    assert "name ▁▃█" in markdown(document) and "name ▁▃█" in on_a_terminal(document)
    assert 'class="plot" id="k"' in html(document) and document.figures == [figure]


def test_terminal_markup_in_foreign_text_is_text(tmp_path):
    rows = [replace(Row(at=0.0), status="reset", ttft=None, error="[bold]not markup[/nonsense]")]
    summary = build(fabricate(tmp_path / "run", rows))
    console = Console(record=True, width=140, file=io.StringIO())
    print_in_short(run_document(summary), console)
    assert "[bold]not markup[/nonsense]" in console.export_text()


class TestWhatIsSeldomNeeded:
    """Rows and parts that stand on demand only: `--all` on a terminal, behind a switch or a heading on the page."""

    def shown(self, run_dir, **options):
        console = Console(record=True, width=200, file=io.StringIO())
        print_in_short(run_document(summarize(run_dir)), console, **options)
        return console.export_text()

    def test_a_terminal_has_the_stall_and_the_checks_when_all_is_asked_for(self, run_dir):
        short, whole = self.shown(run_dir), self.shown(run_dir, everything=True)
        for text in ("│ stall ", "│ TTFT from send ", "All 18 checks", "│ clock "):
            assert text not in short and text in whole

    def test_the_page_has_them_all(self, run_dir):
        page = (run_dir / "report.html").read_text()
        rare = re.findall(r'<tr class="rare"><td class="text">(?:<dfn[^>]*>)?([^<]*)', page)
        # Nothing is reasoned here, so TTFA says what TTFT says; one request failed, so what counts failures is its own.
        assert rare == ["TTFT from send", "TTFA", "stall", "jitter", "E2E per token", "TTFT from send"]
        assert f"{len(rare)} more rows" in page
        assert '<details class="folded"><summary>All 18 checks</summary>' in page

    def test_what_an_objective_names_is_needed(self, tmp_path):
        rows = [Row(at=10.0 * i, gaps=[5.0 + i % 7]) for i in range(100)]
        run_dir = fabricate(tmp_path / "run", rows, spec={"slo": {"good": "ttft < 1s and stall < 2s"}})
        build(run_dir)
        assert "│ stall " in self.shown(run_dir) and "│ jitter " not in self.shown(run_dir)

    def test_where_nothing_failed_figures_that_count_failures_repeat_the_others(self, tmp_path):
        rows = [Row(at=10.0 * i, gaps=[5.0 + i % 7], klass="ab"[i % 2]) for i in range(100)]
        build(fabricate(tmp_path / "run", rows))
        page = (tmp_path / "run" / "report.html").read_text()
        assert page.count("failed = ∞") == page.count('<tr class="rare"><td class="text">') - 5 == 3

    def test_goodput_and_cost_stand_with_the_latencies(self, run_dir):
        lines = self.shown(run_dir).splitlines()
        place = next(k for k, line in enumerate(lines) if line.startswith("└") and "│ E2E" in lines[k - 1])
        assert [line.split(" ")[0] for line in lines[place + 1 : place + 4]] == ["Where", "49.86", "cost:"]


class TestThePagesWords:
    def test_each_link_of_the_contents_leads_to_a_section(self, run_dir):
        page = (run_dir / "report.html").read_text()
        contents = re.findall(r'<a href="#([^"]+)">', page.split("<nav")[1].split("</nav>")[0])
        assert contents == re.findall(r'<section id="([^"]+)">', page)
        assert {"s-latency", "s-diagnosis", "s-did-the-measuring-itself-hold", "words"} <= {*contents}

    def test_a_word_is_explained_where_it_stands_and_at_the_end(self, run_dir):
        page = (run_dir / "report.html").read_text()
        words = {*re.findall(r'<dfn[^>]* title="[^"]+">([^<]*)</dfn>', page)}
        assert {"TTFT", "ITL", "TPOT", "E2E", "p99", "offered", "failed"} <= words
        assert words == {*re.findall(r"<dt>([^<]*)</dt>", page)}
        by_key = re.findall(r'<dfn tabindex="0" [^>]*>([^<]*)</dfn>', page)
        assert sorted(by_key) == sorted(words)  # one of each

    @pytest.mark.parametrize(
        ("label", "shown"),
        [
            ("TTFT <b>", '<dfn tabindex="0" title="Time to first token: '),
            ("TTFTs", "TTFTs"),
            ("goodput/s", "goodput/s"),
            ("the TTFT", "the TTFT"),
            ("<i>TTFT", "&lt;i&gt;TTFT"),
        ],
    )
    def test_only_a_words_own_label_is_explained_and_all_of_it_is_text(self, label, shown):
        page = html(Document("t", "h", [section("s", Table([label], [["1"]]))]))
        head = page.split('<th scope="col"')[1].split("</th>")[0]
        assert shown in head and "<b>" not in head and ("dfn" in head) == ("dfn" in shown)


class TestWhatReadersAreTold:
    """Facts that change how the figures beside them are read."""

    def page(self, tmp_path, rows, **options):
        summary = build(fabricate(tmp_path / "run", rows, **options))
        return summary, (tmp_path / "run" / "report.html").read_text()

    def test_set_up_of_new_connections_stands_apart(self, tmp_path):
        rows = [Row(at=10.0 * i, connect=4.0 if i % 3 == 0 else 0.0, gaps=[5.0]) for i in range(300)]
        summary, page = self.page(tmp_path, rows)
        assert summary.connections.new == 100
        assert summary.connections.set_up_ms.statistic("p50") == 4.0
        assert "100 of 300 requests" in page
        assert "100 new connections: p50 4.00" in export(tmp_path / "run", summary, "md")

    def test_output_that_no_usage_confirms_is_marked(self, tmp_path):
        rows = [Row(at=10.0 * i, gaps=[5.0] * 3, status="truncated" if i % 4 == 0 else "ok") for i in range(200)]
        summary, page = self.page(tmp_path, rows)
        assert "25.00 % of it estimated" in page
        assert "25.00 % of the output estimated" in export(tmp_path / "run", summary, "md")

    def test_a_table_of_latencies_has_intervals_and_says_what_is_lacking(self, tmp_path):
        rows = [Row(at=10.0 * i, ttft=100.0 + 37 * i % 60, gaps=[5.0], klass="ab"[i % 2]) for i in range(400)]
        _, page = self.page(tmp_path, rows)
        latency, split = (
            page.split(f"<h2>{title}</h2>")[1].split("</section>")[0] for title in ("Latency", "Who got what")
        )
        assert '<small class="faint">' in latency and "needs 2,995" in latency
        assert '<small class="faint">' in split and "needs 299" in split

    def test_waste_that_is_not_known_is_not_said_to_be_nothing(self, tmp_path):
        rows = [Row(at=10.0 * i, gaps=[5.0]) for i in range(100)]
        rows += [Row(at=2000.0 + i, ttft=None, status="timeout", end_after=500.0) for i in range(10)]
        _, page = self.page(tmp_path, rows, spec={"gpus": {"type": "l4", "price_per_hour": 36.0}})
        assert "unknown: the server&#39;s work on 10 that ended before a token is not known" in page

    def test_objectives_of_a_class_and_on_a_stall_are_drawn(self, tmp_path):
        from tailgate.reports.documents.plots.run import over_time
        from tailgate.reports.metrics.analysis import analyse
        from tailgate.reports.metrics.timeline import timeline

        rows = [Row(at=10.0 * i, gaps=[5.0] * 3, klass="ab"[i % 2]) for i in range(100)]
        classes = {"a": {"slo": {"ttft": "p95 < 321ms"}}, "b": {}}
        build(
            fabricate(tmp_path / "run", rows, spec={"slo": {"stall": "p95 < 77ms"}, "workload": {"classes": classes}})
        )
        analysis = analyse(tmp_path / "run")
        lines = {
            shape["y0"]: shape["line"]["dash"]
            for shape in over_time(analysis, timeline(analysis)).layout["shapes"]
            if shape["type"] == "line"
        }
        assert lines == {321.0: "dot", 77.0: "dash"}


def test_a_csv_on_the_command_line_reads_the_run_once(run_dir, capsys, monkeypatch):
    from tailgate.reports.metrics import analysis, arrivals

    passes = []
    whole = arrivals.scan
    monkeypatch.setattr(analysis, "scan", lambda *args: passes.append(1) or whole(*args))
    command([str(run_dir), "--format", "csv"])
    assert capsys.readouterr().out.startswith('"index"')
    assert len(passes) == 1
