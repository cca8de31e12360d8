"""Where a table is wider than its medium whole columns go, never digits."""

import io
import re

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tailgate.reports.documents.model import Document, Table, section
from tailgate.reports.documents.render.column_widths import ColumnNeed, column_widths
from tailgate.reports.documents.render.terminal import print_document, standard_output

NEEDS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=12)


@given(NEEDS, st.integers(20, 200), st.data())
def test_what_stays_fits_and_no_column_has_less_than_it_can_do_with(sizes, room, data) -> None:
    needs = [ColumnNeed(least + more, least) for least, more in sizes]
    spare = data.draw(st.lists(st.integers(1, len(needs) - 1), unique=True) if len(needs) > 1 else st.just([]))
    widths = column_widths(needs, spare, room)
    assert 0 in widths and list(widths) == sorted(widths)
    assert all(needs[place].least <= width <= needs[place].natural for place, width in widths.items())
    assert len(widths) == 1 or sum(widths.values()) + 3 * len(widths) + 1 <= room
    gone = [place for place in spare if place not in widths]
    assert gone == spare[: len(gone)]  # in the order given, and the others only after all of these
    assert gone == spare or len(gone) + len(widths) == len(needs)


def test_where_there_is_room_every_column_has_what_it_would_like() -> None:
    assert column_widths([ColumnNeed(4, 2), ColumnNeed(40, 10)], (), 200) == {0: 4, 1: 40}


def test_what_wraps_can_do_with_its_longest_word_and_a_long_word_of_a_text_may_go_on_below() -> None:
    assert ColumnNeed.of("95 % bounds", ["1.25 to 13.5"], wraps=True) == ColumnNeed(12, 6)
    assert ColumnNeed.of("95 % bounds", ["1.25 to 13.5"], wraps=False) == ColumnNeed(12, 12)
    assert ColumnNeed.of("", ["the share of requests"], wraps=True, is_text=True) == ColumnNeed(21, 8)
    assert ColumnNeed.of("id", ["x" * 60], wraps=True, is_text=True).least == 20
    assert ColumnNeed.of("id", ["1" * 60], wraps=True).least == 60


FIGURES = [f"{k * 1_234_567:,}" for k in range(1, 9)]


def on_a_terminal(width: int, table: Table) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_document(Document("t", "h", [section("s", table)]), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_each_number_on_a_narrow_terminal_is_whole_and_the_columns_that_went_are_named() -> None:
    heads = [f"c{k}" for k in range(8)]
    wide, narrow = (on_a_terminal(width, Table(["", *heads], [["row", *FIGURES]], spare=(3, 2))) for width in (200, 60))
    assert all(figure in wide for figure in FIGURES) and "no room" not in wide
    assert {*re.findall(r"[\d,]{5,}", narrow)} < {*FIGURES}
    gone = re.findall(r"no room here for: (.*)", narrow)[0].split(", ")
    assert gone[:2] == ["c1", "c2"] and gone[-1] == "c7"
    assert max(map(len, narrow.splitlines())) <= 60


def test_text_wraps_before_numbers_do_and_numbers_before_a_column_goes() -> None:
    table = Table(["", "bounds", "why"], [["row", "1.25 to 13.5", "its reason in so many words"]], words=(0, 2))
    assert "│ 1.25 to 13.5 │ its reason in so many words │" in on_a_terminal(60, table)
    assert "│ 1.25 to 13.5 │ its reason" in on_a_terminal(40, table)
    narrow = on_a_terminal(26, table)
    assert "1.25 to 13.5" not in narrow and "13.5" in narrow and "many" in narrow


def test_a_pipe_keeps_lines_whole_unless_columns_are_set(monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert standard_output().width == 1000
    monkeypatch.setenv("COLUMNS", "72")
    assert standard_output().width == 72
