"""The faces of a verdict: Markdown, JUnit, the page, the history."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from tests.kit.gate_runs import campaign, noisy, pairs, policy, run, summary

from tailgate.reports.documents.gate.document import gate_document
from tailgate.reports.documents.gate.history import append, entry_of, read
from tailgate.reports.documents.gate.write import (
    STEP_SUMMARY,
    html,
    junit,
    markdown,
    write_all,
    write_step_summary,
)
from tailgate.reports.documents.plots.gate import dots
from tailgate.reports.documents.render.markdown import LIMIT_BYTES, escaped
from tailgate.reports.documents.render.terminal import print_in_short
from tailgate.reports.verdicts.gate.verdict import judge
from tailgate.reports.verdicts.gate.wording import both_sides, interval, middle, percent
from tailgate.workloads.common.errors import UserError

QUIET = {"pairs": 5, "extension": None}


def verdicts(**keys):
    p = policy(**QUIET, **keys)
    broken = pairs([1.0] * 5)
    broken[0].figures["checks"][0]["status"] = "fail"
    return {
        "PASS": judge(pairs(noisy(0.0, 0.005, 5)), p, campaign(5)),
        "FAIL": judge(pairs(noisy(0.4, 0.01, 5)), p, campaign(5)),
        "INCONCLUSIVE": judge(pairs(noisy(0.0, 0.08, 5)), p, campaign(5)),
        "INVALID": judge(broken, p, campaign(5)),
    }


@pytest.mark.parametrize("word", ["PASS", "FAIL", "INCONCLUSIVE", "INVALID"])
def test_markdown_stands_alone(word: str):
    found = verdicts()[word]
    text = markdown(found)
    assert text.startswith("## ") and f" {word}: gate" in text
    assert "tailgate gate" in text and "5 min" in text and "$2.50" in text
    assert len(text.encode()) < LIMIT_BYTES
    if word != "INVALID":
        assert "●" in text and "TTFT p90" in text


def test_markdown_stays_under_the_limit_and_nothing_in_it_becomes_markup():
    runs = pairs([1.0] * 5)
    for one in runs:
        one.manifest.spec = {"target": {"args": {f"<b>|{k}": f"`{one.label}`" * 50 for k in range(2000)}}}
    text = markdown(judge(runs, policy(under_test=["*"], **QUIET), campaign(5)))
    assert len(text.encode()) <= LIMIT_BYTES
    assert "<b>" not in text


def cases(text: str) -> dict[str, str]:
    """Case name -> its result, `` for passed."""
    return {case.get("name"): next((child.tag for child in case), "") for case in ET.fromstring(text)}


def test_junit_has_a_case_for_each_metric_and_check_with_the_right_kind_of_trouble():
    found = verdicts()
    passed = cases(junit(found["PASS"]))
    assert passed == {
        "gate": "", "the candidate does not err more": "", "TTFT p90": "", "TPOT mean": "", "dispatch_lag": "",
    }  # fmt: skip
    failed = cases(junit(found["FAIL"]))
    assert (failed["gate"], failed["TTFT p90"], failed["dispatch_lag"]) == ("failure", "failure", "")
    invalid = cases(junit(found["INVALID"]))
    assert (invalid["gate"], invalid["dispatch_lag"]) == ("error", "error")
    assert "TTFT p90" not in invalid


def test_inconclusive_is_a_failure_or_skipped_as_the_policy_says():
    assert cases(junit(verdicts()["INCONCLUSIVE"]))["gate"] == "failure"
    assert cases(junit(verdicts(inconclusive="neutral")["INCONCLUSIVE"]))["gate"] == "skipped"


def test_junit_counts_what_it_holds():
    suite = ET.fromstring(junit(verdicts()["FAIL"]))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "3", "0")


@pytest.mark.parametrize("word", ["PASS", "FAIL", "INCONCLUSIVE", "INVALID"])
def test_the_page_holds_the_verdict_the_pairs_and_the_command(word: str):
    page = html(verdicts()[word])
    assert f'class="verdict {word}"' in page and "tailgate gate" in page
    assert ("Pair by pair" in page) == (word != "INVALID")


def test_a_long_sentence_is_told_to_its_end_and_a_long_cell_says_that_it_is_cut():
    found = replace(verdicts()["FAIL"], why="word " * 200 + "end")
    assert "word end" in markdown(found)
    assert escaped("x" * 500) == "x" * 399 + "…" and escaped("x" * 400) == "x" * 400


def test_foreign_text_does_not_become_markup_on_the_page():
    runs = pairs([1.0] * 5)
    for one in runs:
        one.manifest.target.model = "<script>alert(1)</script>"
    assert "<script>alert" not in html(judge(runs, policy(**QUIET), campaign(5)))


def test_dots_lie_where_the_pairs_are():
    one = verdicts()["FAIL"].metrics[0]
    strip = dots(one).partition("% ")[2].rpartition(" +")[0]
    pairs_at = [place for place, mark in enumerate(strip) if mark in "●2345"]
    assert strip.index("│") < min(pairs_at) <= max(pairs_at) == len(strip) - 1
    assert len(strip) == 41


def test_a_bound_that_just_misses_the_margin_does_not_read_as_if_it_met_it():
    assert percent(1.0) == "0 %" and percent(0.998) == "−0.2 %" and percent(3.5) == "+250 %"
    assert percent(140.2) == "140×"
    one = verdicts()["FAIL"].metrics[0]
    assert interval(replace(one, ratio=1.05, at_least=1.01, at_most=1.1004)) == "+5.00 % (+1.00 % to +10.04 %)"


def test_all_documents_are_written_and_the_verdict_is_json(tmp_path: Path):
    found = verdicts()["FAIL"]
    write_all(found, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"verdict.json", "gate.md", "gate.xml", "gate.html"}
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "FAIL"


def test_a_job_summary_gets_the_markdown_if_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv(STEP_SUMMARY, str(path))
    write_step_summary(verdicts()["PASS"])
    assert path.read_text().startswith("before\n## ✅ PASS")


def test_the_columns_are_what_was_tested_and_agree_with_the_change():
    """One run of three that is far off: medians would say 100 -> 163, beside a change that isn't their ratio."""
    runs = pairs([1.0, 1.0, 1.0])
    for one, value in zip(runs, (100.0, 163.0, 121.0, 121.0, 90.0, 95.0), strict=True):
        one.figures |= summary(value, value / 5)
    found = judge(runs, policy(pairs=3, extension=None), campaign(3))
    metric = next(m for m in found.metrics if m.key == "ttft.p90")
    sides = [float(text.removesuffix(" ms")) for text in both_sides(metric)]
    assert sides == pytest.approx([(100 * 121 * 90) ** (1 / 3), (163 * 121 * 95) ** (1 / 3)], rel=1e-3)
    assert sides[1] / sides[0] == pytest.approx(metric.ratio, rel=1e-3)
    assert "geometric means of their runs, and the change is their ratio" in markdown(found)
    entry = entry_of(found, "2026-01-01T00:00:00+00:00").metric("load", "ttft.p90")
    assert entry.candidate / entry.baseline == pytest.approx(metric.ratio)


def test_a_side_without_figures_or_with_an_infinite_one_says_so():
    assert (middle([None, None]), middle([100.0, math.inf]), middle([0.0, 4.0])) == (None, math.inf, 0.0)
    assert middle([None, 4.0, 9.0]) == pytest.approx(6.0)


def test_the_other_tests_are_folded_away():
    found = verdicts()["PASS"]
    page, text, console = html(found), markdown(found), Console(file=io.StringIO(), width=200)
    behind = page.index("<summary>The numbers behind it</summary>")
    assert behind < page.index("Wilcoxon p") < page.index("</details>", behind)
    assert text.index("<details><summary>The numbers behind it</summary>") < text.index("Wilcoxon p")
    print_in_short(gate_document(found), console)
    assert "Wilcoxon" not in console.file.getvalue() and "Holm" not in console.file.getvalue()


@pytest.mark.parametrize(("n", "words"), [(1, "1 pair"), (3, "3 pairs")])
def test_one_pair_is_not_several(n: int, words: str):
    found = judge(pairs([1.0] * n), policy(pairs=3, extension=None), campaign(n))
    assert words in markdown(found) and "1 pairs" not in markdown(found) + html(found)
    if n == 1:
        assert found.why == "Only 1 of 3 pairs was measured, so nothing was judged."


class TestHistory:
    def test_verdicts_are_appended_and_read_again(self, tmp_path: Path):
        path = tmp_path / "new" / "history.jsonl"
        for at, word in (("2026-01-01T00:00:00+00:00", "PASS"), ("2026-01-02T00:00:00+00:00", "FAIL")):
            append(path, entry_of(verdicts()[word], at))
        found = read(path)
        assert [entry.verdict for entry in found] == ["PASS", "FAIL"]
        assert found[1].metric("load", "ttft.p90").ratio == pytest.approx(1.4)
        assert "Over earlier verdicts" in html(verdicts()["PASS"], found)

    def test_a_damaged_line_is_named(self, tmp_path: Path):
        path = tmp_path / "history.jsonl"
        path.write_text('{"schema": "tailgate.history/1"\n')
        with pytest.raises(UserError, match=r"history.jsonl:1: is not JSON"):
            read(path)

    def test_no_file_is_no_history(self, tmp_path: Path):
        assert read(tmp_path / "none.jsonl") == []


def test_simulated_targets_are_said_in_every_document():
    runs = pairs([1.0] * 5)
    for one in runs:
        one.figures["simulated"] = True
        one.manifest.target.simulated = True
    found = judge(runs, policy(**QUIET), campaign(5))
    assert "SIMULATED" in markdown(found) and "SIMULATED" in html(found)


def test_never_restarted_servers_limit_what_the_verdict_holds_for():
    found = judge(pairs([1.0] * 5), policy(**QUIET), campaign(5, restart="never"))
    assert "these launches only" in markdown(found) and "these launches only" in html(found)


def test_pairs_measured_again_are_mentioned():
    found = judge(pairs([1.0] * 5), policy(**QUIET), campaign(5, repeated=("pair 2 was measured again",)))
    assert "pair 2 was measured again" in markdown(found)


def test_a_single_run_against_thresholds_names_no_sides():
    one = run("candidate", None, summary())
    one.figures["checks"][0]["status"] = "fail"
    text = markdown(judge([one], policy(thresholds={"ttft": "p99 < 1s"})))
    assert "→" not in text
