"""The first screen of a document as a picture for the README.

    make run && .venv/bin/python -m tests.browser.picture runs/RUN/report.html docs/images/report.png

Needs Chromium (tests/browser/run installs it).
"""

import sys
from pathlib import Path

from tests.browser.chromium import visit

SIZE = (1280, 860)


def picture(page: Path, image: Path) -> None:
    """Draw `page` as a window of SIZE shows it first, in the light scheme."""
    width, height = SIZE
    drawn = "document.documentElement.dataset.drawn !== undefined"
    visit(page, width=width, height=height, until=drawn, screenshot=image, whole=False)


if __name__ == "__main__":
    picture(Path(sys.argv[1]), Path(sys.argv[2]))
