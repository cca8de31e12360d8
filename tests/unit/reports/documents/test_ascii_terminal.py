"""A document on a terminal that has ASCII only: its signs are written out before columns are measured."""

import io

from rich.console import Console

from tailgate.reports.documents import model as doc
from tailgate.reports.documents.render.terminal import print_document, print_verdict_line

TABLE = doc.Table(["", "p99, µs"], [["TTFT ≥", doc.TableCell("n≥59", "× 1.2 …")], ["ITL", "∞"]], "Größe")
DOCUMENT = doc.Document("t", "h", [doc.section("", TABLE)], verdict="FAIL", why="36 of 40 ≥ 800 ms; " + "long " * 60)


def lines(encoding: str, only_verdict: bool = False) -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
    (print_verdict_line if only_verdict else print_document)(DOCUMENT, Console(file=stream, width=90))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding).splitlines()


def test_columns_stay_straight() -> None:
    told = lines("ascii")
    grid = [line for line in told if line[:1] in "+|"]
    assert len({len(line) for line in grid}) == 1
    assert "n>=59" in "\n".join(grid) and "x 1.2 ..." in "\n".join(grid) and "p99, us" in "\n".join(grid)
    assert "n≥59" in "\n".join(lines("utf-8"))


def test_the_verdict_is_one_line_however_long() -> None:
    (line,) = lines("utf-8", only_verdict=True)
    assert line.startswith("FAIL  36 of 40") and len(line) > 300
