"""A run's report in a real Chromium: drawn, quiet, offline, readable on a telephone and in the dark."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.browser.chromium import visit
from tests.kit.fabricate import Row, S, fabricate

from tailgate.reports.build import build
from tailgate.reports.rundir.manifest import TargetRecord
from tailgate.reports.rundir.telemetry import GPU_SCHEMA

pytestmark = pytest.mark.browser

DRAWN = "document.documentElement.dataset.drawn !== undefined"
EVIL = "<script>window.owned = 1</script><img src=x onerror='window.owned = 2'>"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A run with everything in it, and foreign text in every place that foreign text can reach."""
    rows = [
        Row(
            at=40.0 * i, ttft=80.0 + 37 * i % 60, gaps=[20.0 + i % 3] * (5 + i % 40), prompt_tokens=50 + 13 * i % 2000,
            tenant=["acme", EVIL][i % 2], klass=["chat", EVIL][i % 3 == 0], late=0.3, connect=0.5, server_queue_ms=9.0,
        )
        for i in range(500)
    ]  # fmt: skip
    rows += [Row(at=19_990.0, status="http_error", http_status=500, ttft=None, error=EVIL)]
    server = [
        (float(t), name, json.dumps({"engine": EVIL}), value)
        for t in range(-1, 30)
        for name, value in (
            ("vllm:num_requests_running", 12.0), ("vllm:num_requests_waiting", 2.0), ("vllm:kv_cache_usage_perc", 0.6),
        )
    ]  # fmt: skip
    path = fabricate(
        tmp_path_factory.mktemp("browser") / "run",
        rows,
        seconds=20.0,
        server=server,
        name=EVIL,
        spec={
            "slo": {"ttft": "p95 < 800ms", "good": "ttft < 300ms"},
            "gpus": {"type": EVIL, "price_per_hour": 2.5, "count": 2},
            "note": EVIL,
        },
        notices=[EVIL],
        command_line=["tailgate", "run", EVIL],
        target=TargetRecord(kind="sim", simulated=True, model=EVIL, server=EVIL, fingerprint={EVIL: EVIL}, urls=[EVIL]),
        state_reason=EVIL,
    )
    samples = [
        {"t_ns": t * S // 2, "gpu": EVIL, "name": name, "value": value}
        for t in range(-2, 60)
        for name, value in (("power_w", 350.0), ("sm_clock_mhz", 1980.0), ("utilization", 0.9), ("energy_j", 175.0 * t))
    ]
    pq.write_table(pa.Table.from_pylist(samples, GPU_SCHEMA), path / "gpu.parquet")
    (path / "events.jsonl").write_text(json.dumps({"t_ns": 5 * S, "kind": EVIL, "text": EVIL}) + "\n")
    build(path)
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 420, 390])
def test_it_is_drawn_without_an_error_or_a_request_and_fits_the_window(run_dir, width, dark):
    shot = Path(__file__).parent / "screenshots" / f"report-{width}{'-dark' if dark else ''}.png"
    ask = [
        "document.querySelectorAll('.plot').length",
        "document.querySelectorAll('.plot .main-svg').length > 0 && [...document.querySelectorAll('.plot')]"
        ".every(p => p.querySelector('.plot-container'))",
        "document.documentElement.scrollWidth",
        "window.owned === undefined",
        "document.querySelectorAll('img').length",
    ]
    seen = visit(run_dir / "report.html", width=width, dark=dark, until=DRAWN, ask=ask, screenshot=shot)
    assert (seen.errors, seen.requests) == ([], [])
    plots, drawn, scroll, unowned, images = seen.values
    assert plots >= 8
    assert drawn
    assert scroll <= width
    assert unowned and images == 0


def test_every_figure_has_a_table_and_every_table_heads(run_dir):
    ask = [
        "[...document.querySelectorAll('figure')].every(f => f.querySelector('details table tbody tr'))",
        *(
            f"[...document.querySelectorAll('.plot')].every(p => document.getElementById(p.getAttribute('{name}')))"
            for name in ("aria-describedby", "aria-labelledby")
        ),
        "[...document.querySelectorAll('table')].every(t => t.querySelector('th[scope=col]'))",
        "document.documentElement.lang",
    ]
    seen = visit(run_dir / "report.html", until=DRAWN, ask=ask)
    assert seen.values == [True, True, True, True, "en"]


def test_the_first_screen_says_what_came_out_and_how_to_run_it_again(run_dir):
    inside = "r.top >= 0 && r.bottom <= innerHeight"
    visible = f"s => {{ const r = document.querySelector(s).getBoundingClientRect(); return {inside} }}"
    ask = [f"({visible})('{selector}')" for selector in (".verdict", ".cards", "header pre", ".banner.sim")]
    ask.append("document.querySelectorAll('.card').length")
    seen = visit(run_dir / "report.html", until=DRAWN, ask=ask)
    assert seen.values[:4] == [True] * 4
    assert seen.values[4] <= 8


def test_a_simulation_is_marked_on_the_screen_and_on_paper(run_dir):
    ask = [
        "document.querySelector('.banner.sim').innerText.includes('SIMULATED')",
        "(scrollTo(0, document.body.scrollHeight), document.querySelector('.banner.sim').getBoundingClientRect().top)",
        "[...document.styleSheets].flatMap(s => [...s.cssRules]).some(r => r.media?.mediaText === 'print'"
        " && [...r.cssRules].some(c => c.selectorText === '.watermark' && c.style.position === 'fixed'))",
    ]
    assert visit(run_dir / "report.html", until=DRAWN, ask=ask).values == [True, 0, True]


def test_on_paper_figures_are_as_narrow_as_the_page(run_dir):
    widths = (
        "Promise.resolve([...document.querySelectorAll('.plot .main-svg')].map(s => s.getBoundingClientRect().width))"
    )
    ask = [
        f"dispatchEvent(new Event('beforeprint')) && {widths}",
        f"dispatchEvent(new Event('afterprint')) && {widths}",
    ]
    on_paper, on_screen = visit(run_dir / "report.html", until=DRAWN, ask=ask).values
    assert max(on_paper) <= 680
    assert max(on_screen) > 1000


def test_it_stays_small(run_dir):
    assert (run_dir / "report.html").stat().st_size <= 3_000_000


# Whether an element is wholly inside the window and not under the contents, which stay at the top.
SEEN = """(e => { const r = e.getBoundingClientRect(), bar = document.querySelector(".top").getBoundingClientRect();
  return r.top >= bar.bottom - 1 && r.left >= 0 && r.right <= innerWidth && r.top < innerHeight })"""


@pytest.mark.parametrize("width", [1280, 390])
def test_the_contents_lead_to_each_section_and_stay_in_one_or_two_lines(run_dir, width):
    jumps = f"""(async () => {{ const seen = [];
      for (const link of document.querySelectorAll("nav a")) {{
        link.click(); await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        seen.push({SEEN}(document.querySelector(link.hash + " > h2")));
      }} return seen }})()"""
    ask = [jumps, "document.querySelector('nav').offsetHeight", "document.documentElement.scrollWidth"]
    seen = visit(run_dir / "report.html", width=width, until=DRAWN, ask=ask)
    jumped, height, scroll = seen.values
    assert len(jumped) >= 12 and all(jumped)
    assert height <= 80 and scroll <= width and seen.errors == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("event", ["pointerover", "focusin", "click"])
def test_a_word_is_explained_inside_the_window_when_pointed_at_tapped_or_in_focus(run_dir, width, event):
    words = f"""[...document.querySelectorAll("header dfn")].map(word => {{
      word.dispatchEvent(new Event("{event}", {{bubbles: true}}));
      const r = document.getElementById("tip").getBoundingClientRect();
      return [document.getElementById("tip").textContent, r.left >= 0 && r.right <= innerWidth && r.height > 10] }})"""
    away = """document.body.dispatchEvent(new Event("pointerover", {bubbles: true}))
      && document.getElementById("tip").hidden"""
    ask = [words, away, "document.querySelectorAll('dfn[title]').length"]
    explained, hidden, native = visit(run_dir / "report.html", width=width, until=DRAWN, ask=ask).values
    assert any(text.startswith("Time to first token") for text, _ in explained)
    assert all(text and inside for text, inside in explained)
    assert hidden and native == 0  # the browser's own would stand beside it


def test_rows_that_are_seldom_needed_and_all_checks_are_there_on_demand(run_dir):
    rows = "[...document.querySelectorAll('tr.rare')].filter(row => row.offsetHeight > 0).length"
    checks = "[...document.querySelectorAll('details.folded tr')].filter(row => row.checkVisibility()).length"
    ask = [
        rows,
        f"document.querySelectorAll('.more input').forEach(box => box.click()) || {rows}",
        checks,
        f"dispatchEvent(new Event('beforeprint')) && {checks}",
        f"dispatchEvent(new Event('afterprint')) && {checks}",
    ]
    few, all_rows, folded, on_paper, again = visit(run_dir / "report.html", until=DRAWN, ask=ask).values
    assert few == 0 and all_rows >= 4
    assert folded == again == 0 and on_paper >= 17


def test_an_invalid_run_says_on_the_first_screen_what_happened_and_what_to_do(tmp_path):
    run = fabricate(tmp_path / "run", [Row(at=10.0 * i, late=50.0, gaps=[5.0]) for i in range(300)])
    build(run)
    shot = Path(__file__).parent / "screenshots" / "invalid-390.png"
    ask = ["document.querySelector('.verdict').innerText", f"{SEEN}(document.querySelector('.verdict p'))"]
    seen = visit(run / "report.html", width=390, height=844, until=DRAWN, ask=ask, screenshot=shot, whole=False)
    text, visible = seen.values
    assert "This machine was too busy, or too slow, for this load" in text
    assert "What to do: Lower the rate" in text and "own_error" not in text
    assert visible and seen.errors == []
