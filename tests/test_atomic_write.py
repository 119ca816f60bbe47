"""Files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

from ttm.atomic_write import written_beside


def test_two_writers_with_one_process_id_do_not_share_a_file(tmp_path: Path) -> None:
    """As processes of two machines that share a disk may have."""
    path = tmp_path / "plan.json"
    with written_beside(path) as first:
        with written_beside(path) as second:
            assert first != second and first.suffix == second.suffix == ".json"
            assert f".{os.getpid()}.part" in first.name
            first.write_text("first")
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]
