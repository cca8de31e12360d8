"""Fits of the real traces."""

from pathlib import Path

import pytest

from tailgate.workloads.config.workload import TraceSpec
from tailgate.workloads.fit.profile import Fit, fit_profile


def checks(fit: Fit) -> dict[str, tuple[float | None, float | None]]:
    return {check.name: (check.log, check.fit) for check in fit.checks}


def test_conversations_are_told_from_prefix_blocks_where_no_session_is_named(traces: Path) -> None:
    fit = fit_profile(TraceSpec(file=traces / "mooncake" / "conversation_trace.jsonl.gz", format="mooncake"))
    log, drawn = checks(fit)["prompt tokens seen before"]
    assert log == pytest.approx(0.374, abs=0.001) and drawn == pytest.approx(log, abs=0.02)
    # 1.50 requests each in the log, whose end cuts some.
    assert fit.estimates["turns.mean"].value == pytest.approx(1.65, abs=0.05)


def test_prompts_over_the_same_documents_are_told_from_conversations(traces: Path) -> None:
    fit = fit_profile(TraceSpec(file=traces / "mooncake" / "synthetic_trace.jsonl.gz", format="mooncake"))
    assert "sessions" not in fit.profile["workload"]
    log, drawn = checks(fit)["prompt tokens seen before"]
    assert log == pytest.approx(0.651, abs=0.001) and drawn == pytest.approx(log, rel=0.05)


def test_bursts_are_fitted_as_bursts(traces: Path) -> None:
    fit = fit_profile(TraceSpec(file=traces / "azure-2023" / "AzureLLMInferenceTrace_code.csv", format="azure"))
    assert "bursts" in fit.profile["workload"]["arrivals"]
    log, drawn = checks(fit)["variation of gaps"]
    assert drawn == pytest.approx(log, rel=0.2)


def test_a_log_without_times_gives_a_closed_loop_and_says_so(traces: Path) -> None:
    fit = fit_profile(
        TraceSpec(
            file=traces / "vidur" / "arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz",
            format="csv",
            columns={"prompt_tokens": "num_prefill_tokens", "output_tokens": "num_decode_tokens"},
        )
    )
    assert fit.profile["workload"]["users"] == 16
    assert any("no times" in note for note in fit.notes)
