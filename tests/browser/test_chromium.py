"""The helper itself: what it must notice, it notices."""

from pathlib import Path

import pytest
from tests.browser.chromium import visit

pytestmark = pytest.mark.browser


def page(folder: Path, body: str) -> Path:
    path = folder / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><title>t</title><body>{body}</body>")
    return path


def test_a_quiet_page_has_no_errors_and_no_requests_and_can_be_seen(tmp_path: Path):
    shot = tmp_path / "shots" / "quiet.png"
    quiet = page(tmp_path, "<p style='height:2000px'>hello<script>console.log('fine')</script>")
    seen = visit(quiet, width=420, ask=["document.title", "innerWidth", "Promise.resolve(7)"], screenshot=shot)
    assert (seen.errors, seen.requests, seen.values) == ([], [], ["t", 420, 7])
    header = shot.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(header[16:20], "big") == 420 and int.from_bytes(header[20:24], "big") >= 2000


def test_console_errors_and_exceptions_are_noticed(tmp_path: Path):
    loud = page(tmp_path, "<script>console.error('first', 1)</script><script>throw new Error('second')</script>")
    errors = visit(loud).errors
    assert any("first 1" in e for e in errors) and any("second" in e for e in errors)


def test_requests_beyond_the_page_are_noticed_and_do_not_leave_the_machine(tmp_path: Path):
    curious = page(tmp_path, "<script src='http://127.0.0.1:9/x.js'></script><img src='other.png'>")
    seen = visit(curious)
    assert "http://127.0.0.1:9/x.js" in seen.requests
    assert any(url.endswith("/other.png") for url in seen.requests)
    assert any("ERR_INTERNET_DISCONNECTED" in e for e in seen.errors)


def test_the_colour_scheme_is_passed_on(tmp_path: Path):
    ask = ["matchMedia('(prefers-color-scheme: dark)').matches"]
    assert visit(page(tmp_path, ""), dark=True, ask=ask).values == [True]
    assert visit(page(tmp_path, ""), ask=ask).values == [False]
