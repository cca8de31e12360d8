"""The metric catalogue: each entry stands in a summary where it says."""

from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from tailgate.reports.metrics.catalogue import COMPARED, GLOSSARY, LATENCIES, METRICS, Metric
from tailgate.reports.summary.latency import LatencySummary
from tailgate.reports.summary.model import Summary


@pytest.mark.parametrize("metric", [m for m in (*METRICS.values(), *COMPARED) if m.path[0] != "derived"])
def test_a_metric_stands_in_a_summary_where_the_catalogue_says(metric: Metric) -> None:
    section, *rest = metric.path
    kind = get_type_hints(Summary)[section]
    if kind == dict[str, LatencySummary]:
        assert rest[0] in {latency.key for latency in LATENCIES}
        return
    for name in rest:
        kind = next((one for one in get_args(kind) if one is not type(None)), kind)
        assert name in {field.name for field in fields(kind)}, metric
        kind = get_type_hints(kind)[name]


def test_keys_are_unique_and_statistics_carry_label_and_path() -> None:
    assert len({metric.key for metric in COMPARED}) == len(COMPARED)
    p99 = METRICS["ttft"].at("p99", failures_late=True)
    assert (p99.key, p99.label, p99.path) == ("ttft.p99", "TTFT p99", ("latency_failed_as_inf_ms", "ttft", "p99"))


def test_every_metric_has_a_sentence_that_a_reader_of_the_page_can_take_in_at_once() -> None:
    assert {metric.label for metric in METRICS.values()} <= {*GLOSSARY}
    for word, meaning in GLOSSARY.items():
        assert meaning[0].isupper() and meaning.endswith(".") and 20 <= len(meaning) <= 120, word


def test_a_variant_is_of_a_metric_that_stands_before_it() -> None:
    keys = list(METRICS)
    for metric in METRICS.values():
        assert not metric.variant_of or keys.index(metric.variant_of) < keys.index(metric.key)
