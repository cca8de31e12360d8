"""Reading /metrics pages: the same series and values as prometheus_client, only sooner."""

import json

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tailgate.harness.telemetry import prometheus_text
from tailgate.harness.telemetry.prometheus_text import PageReader, SeriesKey


def page() -> str:
    registry = CollectorRegistry()
    Gauge("vllm:num_requests_running", "r", ["model_name"], registry=registry).labels('a "b" \\ {c} d').set(3)
    Counter("vllm:prompt_tokens", "p", ["engine"], registry=registry).labels("0").inc(41)
    histogram = Histogram("vllm:ttft_seconds", "t", registry=registry, buckets=(0.1, 1))
    histogram.observe(0.05)
    histogram.observe(7)
    Gauge("process_open_fds", "f", registry=registry).set(9)
    Gauge("python_info", "i", registry=registry).set(1)
    return generate_latest(registry).decode()


def by_library(text: str) -> dict[tuple[str, str], float]:
    return {
        (s.name, json.dumps(s.labels, sort_keys=True, separators=(",", ":"))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def read(reader: PageReader, text: str) -> dict[tuple[str, str], float]:
    keys, values = reader.read(text)
    return {(k.name, k.labels): v for k, v in zip(keys, values, strict=True)}


def test_a_page_reads_as_the_library_reads_it_less_what_is_not_kept():
    expected = {
        key: value
        for key, value in by_library(page()).items()
        if not key[0].endswith("_created") and not key[0].startswith("python_")
    }
    reader = PageReader()
    assert read(reader, page()) == expected
    assert read(reader, page()) == expected  # from memory this time


def test_values_are_read_anew_from_every_page():
    reader = PageReader()
    reader.read("vllm:x_total 1\n")
    assert read(reader, "vllm:x_total 2.5e3\n") == {("vllm:x_total", "{}"): 2500.0}


def test_pages_of_other_servers_are_kept_whole():
    reader = PageReader()
    assert read(reader, "# TYPE go_threads gauge\ngo_threads 7\nsglang:queue 1\n") == {
        ("go_threads", "{}"): 7.0,
        ("sglang:queue", "{}"): 1.0,
    }
    assert not reader.is_vllm


def test_times_of_a_federating_prometheus_are_left_out():
    reader = PageReader()
    for value in (1.5, 2.5):
        text = f'power{{a="x y"}} {value} 1700000000123\nthreads {value} 1700000000123\n'
        keys, values = reader.read(text)
        assert [key.name for key in keys] == ["power", "threads"] and values == [value, value]


@pytest.mark.parametrize("text", ["<html>not found</html>", '{"a": 1}', "name{ 1", "x y"])
def test_what_is_not_prometheus_text_is_an_error(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - float() and the library word it differently
        PageReader().read(text)


def test_what_is_known_of_a_page_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch):
    parsed: list[str] = []

    def parse(text: str):
        parsed.append(text)
        return text_string_to_metric_families(text)

    monkeypatch.setattr(prometheus_text, "text_string_to_metric_families", parse)
    reader, text = PageReader(), page()
    first = reader.read(text)
    assert len(parsed) == len(first[0])
    assert reader.read(text + "process_new 3\n") == ([*first[0], SeriesKey("process_new", "{}")], [*first[1], 3.0])
    assert parsed[len(first[0]) :] == ["process_new 3\n"]
