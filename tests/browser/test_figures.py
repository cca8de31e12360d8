"""What a person does with a figure and a table in Chromium: zoom and reset, save a picture, scroll on a phone."""

from pathlib import Path

import pytest
from tests.browser.chromium import visit
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.build import build
from tailgate.reports.rundir.manifest import TargetRecord

pytestmark = pytest.mark.browser

DRAWN = "document.documentElement.dataset.drawn !== undefined"
BUTTONS = (
    "[...document.querySelectorAll('.plot')].map("
    "place => [...place.querySelectorAll('.modebar-btn')].map(button => button.dataset.title))"
)
PLACE = "document.getElementById('curve-itl')"
OPEN_TABLES = "[...document.querySelectorAll('.wide')].filter(w => !w.closest('details:not([open])'))"


def click(button: str) -> str:
    event = "new MouseEvent('click', {bubbles: true})"
    return f"{PLACE}.querySelector('[data-title=\"{button}\"]').dispatchEvent({event})"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A simulated run whose median gap is zero, with objectives and classes."""
    rows = [
        Row(
            at=20.0 * i, ttft=80.0 + 37 * i % 60, gaps=[0.0, 0.0, 25.0 + i % 20] * 3, prompt_tokens=50 + 13 * i % 2000,
            klass=["chat", "summarise-with-a-long-name"][i % 2],
        )
        for i in range(400)
    ]  # fmt: skip
    path = fabricate(
        tmp_path_factory.mktemp("figures") / "run",
        rows,
        seconds=8.0,
        name="a <b>name</b> & more",
        spec={"slo": {"ttft": "p95 < 300ms", "itl": "p99 < 40ms"}},
        target=TargetRecord(kind="sim", simulated=True, model="tiny"),
    )
    build(path)
    return path / "report.html"


def test_every_figure_has_a_button_that_resets_the_zoom_and_one_that_saves_it_and_no_other(page):
    (buttons,) = visit(page, until=DRAWN, ask=[BUTTONS]).values
    assert len(buttons) >= 7
    assert all(each == ["Reset zoom", "Save as PNG"] for each in buttons)


def test_the_zoom_is_reset_to_what_was_drawn_first(page):
    ranges = f"JSON.stringify([{PLACE}.layout.xaxis.range, {PLACE}.layout.yaxis.range])"
    zoomed = f"Plotly.relayout({PLACE}, {{'xaxis.range': [0.2, 0.3], 'yaxis.range': [1, 2]}}).then(() => {ranges})"
    seen = visit(page, until=DRAWN, ask=[ranges, zoomed, click("Reset zoom"), ranges])
    before, inside, _, after = seen.values
    assert seen.errors == []
    assert inside == "[[0.2,0.3],[1,2]]"
    assert after == before


def test_a_saved_picture_is_a_png_that_tells_what_it_shows_and_that_it_is_simulated(page):
    # What would go to the disk is kept in the page instead.
    catch = """
        const given = {};
        window.saved = new Promise(done => {
          const keep = URL.createObjectURL.bind(URL);
          URL.createObjectURL = blob => { given.blob = blob; return keep(blob); };
          HTMLAnchorElement.prototype.click = async function () {
            const bytes = new Uint8Array(await given.blob.arrayBuffer());
            done([this.download, [...bytes.slice(1, 4)], bytes.length, given.title]);
          };
        });
        const make = Plotly.downloadImage;
        Plotly.downloadImage = (figure, options) => {
          given.title = figure.layout.title.text;
          return make(figure, options);
        };
        true"""
    seen = visit(page, until=DRAWN, ask=[catch, click("Save as PNG"), "window.saved"])
    name, kind, size, title = seen.values[-1]
    assert name == "a-b-name-b-more-curve-itl.png"
    assert bytes(kind) == b"PNG" and size > 10_000
    assert title == "SIMULATED · ITL by percentile · a &#60;b&#62;name&#60;/b&#62; &#38; more"
    assert seen.requests == []


@pytest.mark.parametrize(("width", "some"), [(390, True), (1280, False)])
def test_a_table_that_is_wider_than_the_window_says_that_it_scrolls(page, width, some):
    tables = f"{OPEN_TABLES}.map(w => [w.scrollWidth > w.clientWidth + 1, !w.previousElementSibling.hidden])"
    scroll = "document.documentElement.scrollWidth"
    overflows, page_width = visit(page, width=width, until=DRAWN, ask=[tables, scroll]).values
    assert page_width <= width
    assert all(wide == said for wide, said in overflows)
    assert any(said for _, said in overflows) == some


def test_a_table_that_is_opened_later_says_it_too(page):
    opened = """new Promise(done => {
        const table = document.getElementById('time-table');
        table.open = true;
        const look = () => table.querySelector('.foot').hidden ? requestAnimationFrame(look) : done(true);
        look();
    })"""
    assert visit(page, width=390, until=DRAWN, ask=[opened]).values == [True]


def test_no_single_word_of_a_table_is_broken(page):
    broken = f"""{OPEN_TABLES}.flatMap(w => [...w.querySelectorAll('td')]).filter(cell => {{
        const words = document.createRange();
        words.selectNodeContents(cell);
        const lines = new Set([...words.getClientRects()].map(r => Math.round(r.top)));
        return /^\\S{{1,22}}$/.test(cell.textContent.trim()) && lines.size > 1;
    }}).map(cell => cell.textContent)"""
    assert visit(page, width=390, until=DRAWN, ask=[broken]).values == [[]]
