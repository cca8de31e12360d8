"""The quick half of the fault table: no fault loses a row, ends a run badly, or is blamed on anything else."""

from pathlib import Path

import pytest
from tests.bench import bench_faults
from tests.kit.faults import processes, servers


@pytest.mark.parametrize(
    "fault", [fault for fault in servers.SERVER_FAULTS if fault.quick], ids=lambda fault: fault.name
)
def test_a_server_that(fault: servers.ServerFault, tmp_path: Path) -> None:
    assert not servers.problems(fault, servers.run(fault, tmp_path))


@pytest.mark.parametrize(
    "fault", [fault for fault in processes.PROCESS_FAULTS if fault.quick], ids=lambda fault: fault.name
)
def test_a_process(fault: processes.ProcessFault, tmp_path: Path) -> None:
    assert not processes.problems(fault, processes.run(fault, tmp_path))


@pytest.mark.parametrize("kind", ["server", "process"])
def test_the_document_has_a_line_for_each_fault(kind: str) -> None:
    text = bench_faults.DOCUMENT.read_text()
    table = text.partition(f"<!-- {kind} faults -->")[2].partition("<!-- end")[0].splitlines()
    assert [row.split("|")[1].strip() for row in table[3:]] == bench_faults.names(kind)
