"""The table of content on disk."""

from pathlib import Path

import pytest

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.prompts.content_table import table_default


def test_content_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"content\.npz"):
        table_default().save(tmp_path / "missing" / "content.npz")
    path = tmp_path / "content.npz"
    table_default().save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["content.npz"]
