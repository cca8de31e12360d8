"""A four-way comparison in a real Chromium: every plot drawn, no error, no request, readable everywhere."""

from pathlib import Path

import pytest
from tests.browser.chromium import visit
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.build import build
from tailgate.reports.compare.comparison import compare
from tailgate.reports.compare.runs import load_runs
from tailgate.reports.documents.comparison import comparison_document
from tailgate.reports.documents.render.html import html
from tailgate.reports.rundir.manifest import TargetRecord

pytestmark = pytest.mark.browser

DRAWN = "document.documentElement.dataset.drawn !== undefined"
EVIL = "<script>window.owned = 1</script><img src=x onerror='window.owned = 2'>"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    names = []
    for label, slow, price in (("bf16", 1.0, 2.5), ("fp8", 0.8, 2.5), ("int4", 0.7, 1.8), (EVIL, 1.5, 1.8)):
        for rate in (20.0, 40.0):
            for k in range(2):
                rows = [
                    Row(
                        at=1000.0 * i / rate,
                        ttft=slow * (1 + k / 40) * (80 + 37 * i % 60) * rate / 20,
                        gaps=[slow * 20.0] * 9,
                    )
                    for i in range(int(12 * rate))
                ]
                name = f"r{len(names)}"
                build(
                    fabricate(
                        folder / name, rows, seconds=12.0, name=label, plan_hash=f"{rate}-{k}", workload_hash="w",
                        spec={
                            "gpus": {"type": "h100-sxm", "price_per_hour": price},
                            "workload": {"arrivals": {"rate": rate}},
                            "target": {"args": {"quantization": label}},
                        },
                        target=TargetRecord(kind="sim", simulated=True, model="tiny"),
                    )
                )  # fmt: skip
                names.append(str(folder / name))
    (folder / "compare.html").write_text(html(comparison_document(compare(load_runs(names)))))
    return folder / "compare.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 420])
def test_it_is_drawn_without_an_error_or_a_request_and_fits_the_window(page, width, dark):
    shot = Path(__file__).parent / "screenshots" / f"compare-{width}{'-dark' if dark else ''}.png"
    ask = [
        "document.querySelectorAll('.plot').length",
        "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.plot-container'))",
        "document.documentElement.scrollWidth",
        "window.owned === undefined && document.querySelectorAll('img').length === 0",
        "document.querySelector('.banner.sim') !== null",
    ]
    seen = visit(page, width=width, dark=dark, until=DRAWN, ask=ask, screenshot=shot)
    assert (seen.errors, seen.requests) == ([], [])
    plots, drawn, scroll, unowned, marked = seen.values
    assert plots == 6  # ratios, two fronts, three latencies against load (240 requests have no p99)
    assert drawn and unowned and marked
    assert scroll <= width
