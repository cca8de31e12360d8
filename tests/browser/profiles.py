"""The pictures of docs/workloads.md: the figures of each built-in profile's preview, as a browser shows them.

    .venv/bin/python -m tests.browser.profiles

Needs Chromium (tests/browser/run installs it) and Pillow (pip install pillow), which makes the files small.
"""

import tempfile
from pathlib import Path

from PIL import Image
from tests.browser.chromium import visit

from tailgate.reports.documents.render.html import html
from tailgate.reports.documents.workload import workload_document
from tailgate.workloads.config.profiles import load, names
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.plan.summary import plan_figures

FOLDER = Path(__file__).parents[2] / "docs" / "profiles"
SIZE = (1000, 760)
COLOURS = 128
DRAWN = "document.documentElement.dataset.drawn !== undefined"
# From the figures on: what the table above them says stands in the docs.
SCROLLED = "document.querySelector('.pair').scrollIntoView()"


def picture(name: str, image: Path) -> None:
    """Draw what a window of SIZE shows of a profile's preview."""
    plan = make_plan(WorkloadSpec.model_validate({"profile": name}), 0)
    page = html(workload_document(plan_figures(plan), plan, name=name, about=load(name).about))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "preview.html"
        path.write_text(page)
        width, height = SIZE
        visit(path, width=width, height=height, until=DRAWN, ask=[SCROLLED], screenshot=image, whole=False)
    Image.open(image).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(image, optimize=True)


if __name__ == "__main__":
    for each in names():
        picture(each, FOLDER / f"{each}.png")
