"""Every built-in profile runs against the embedded engine, and leaves a valid record of every row."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.kit.command import SIM, Tailgate

from tailgate.loadgen.records import REQUESTS_SCHEMA, Status
from tailgate.workloads.config.profiles import names

# A draw in which something arrives within two seconds: bursts and their pauses are longer than that.
SEEDS = {"code-completion": 4}
# What a short run may end with: the long answers of some profiles outlast its drain.
ENDS = {Status.OK, Status.TIMEOUT}


@pytest.mark.parametrize("profile", names())
def test_a_profile_runs_and_every_row_has_a_valid_record(profile: str, tailgate: Tailgate, tmp_path: Path) -> None:
    out = tmp_path / "run"
    seed = str(SEEDS.get(profile, 2))
    said = tailgate(
        "run", "--target", SIM, "--profile", profile, "--seed", seed, "--duration", "2s", "--drain", "2s",
        "--out", out, "--quiet",
    )  # fmt: skip
    assert said.code in (0, 1, 4), said.err
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["state"] == "complete" and (out / "report.html").exists()
    records, plan = pq.read_table(out / "requests.parquet"), pq.read_table(out / "plan.parquet")
    assert records.schema.equals(REQUESTS_SCHEMA)
    index = records["index"].to_numpy()
    if manifest["loop"] == "open":
        assert index.tolist() == plan["index"].to_pylist()
    else:  # of an endless plan, the rows that were started
        assert 0 < len(index) <= plan.num_rows and len(set(index)) == len(index)
    assert {Status(status) for status in records["status"].to_pylist()} <= ENDS
    total = records["prompt_tokens_planned"].to_numpy() + records["output_tokens_planned"].to_numpy()
    assert total.max() <= 131_072  # the model's context

    ok = records.filter(np.array(records["status"].to_pylist()) == "ok")
    assert ok["prompt_tokens"].to_pylist() == ok["prompt_tokens_planned"].to_pylist()
    assert ok["output_tokens"].to_pylist() == ok["output_tokens_planned"].to_pylist()
    steps = [
        ok[f"{name}_ns"].to_numpy() for name in ("dispatched", "sent", "headers", "first_token", "last_token", "end")
    ]
    assert all((later >= earlier).all() for earlier, later in pairwise(steps))
