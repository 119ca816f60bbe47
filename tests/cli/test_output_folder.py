"""An output folder is written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from ttm.cli.errors import CommandError
from ttm.cli.output_folder import check_output, written_whole

NAMES = ("video.mp4", "run.json")


def _fill(folder: Path, text: str = "new") -> None:
    for name in NAMES:
        (folder / name).write_text(text)


def _contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with written_whole(target, overwrite=True) as filling:
        _fill(filling)
        assert not target.exists()
    assert _contents(target) == {"video.mp4": "new", "run.json": "new"}
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    assert target.stat().st_mode & 0o077 == (tmp_path / "deep").stat().st_mode & 0o077


def test_other_files_of_an_existing_folder_stay(tmp_path: Path) -> None:
    _fill(tmp_path, "old")
    (tmp_path / "notes.txt").write_text("mine")
    with written_whole(tmp_path, overwrite=True) as filling:
        _fill(filling)
    assert _contents(tmp_path) == {"video.mp4": "new", "run.json": "new", "notes.txt": "mine"}


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space")])
def test_a_failure_leaves_everything_as_it_was(tmp_path: Path, error: BaseException) -> None:
    _fill(tmp_path, "old")
    expected = CommandError if isinstance(error, OSError) else type(error)
    for target in (tmp_path, tmp_path / "deep" / "out"):
        with pytest.raises(expected), written_whole(target, overwrite=True) as filling:
            (filling / "video.mp4").write_text("half")
            raise error
    assert _contents(tmp_path) == {"video.mp4": "old", "run.json": "old"}


@pytest.mark.parametrize("new", [False, True])
def test_of_two_runs_into_one_folder_the_later_one_fails(tmp_path: Path, new: bool) -> None:
    target = tmp_path / "out"
    if not new:
        target.mkdir()
    with (
        pytest.raises(CommandError, match=r"holds run.json, video.mp4 already; .*--overwrite"),
        written_whole(target, overwrite=False) as late,
    ):
        _fill(late, "late")
        (late / "more.txt").write_text("late")
        with written_whole(target, overwrite=False) as first:
            _fill(first)
    assert _contents(target) == {"video.mp4": "new", "run.json": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with written_whole(target, overwrite=True) as later:
        _fill(later, "later")
    assert _contents(target) == {"video.mp4": "later", "run.json": "later"}


def test_a_full_disk_is_called_so(tmp_path: Path) -> None:
    with (
        pytest.raises(CommandError, match="disk .* full; nothing was written"),
        written_whole(tmp_path / "out", overwrite=True),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "video.mp4")


def test_check_output_lets_pass_what_can_be_written(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b", NAMES, overwrite=False)
    check_output(tmp_path, NAMES, overwrite=False)
    _fill(tmp_path)
    check_output(tmp_path, NAMES, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)  # the probe left nothing


def test_check_output_refuses_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("old")
    with pytest.raises(CommandError, match=r"holds run.json already.*--overwrite"):
        check_output(tmp_path, NAMES, overwrite=False)


def test_check_output_refuses_a_folder_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(CommandError, match="b.txt is a folder; expected a file to replace"):
        check_output(tmp_path, ["a.txt", "b.txt"], overwrite=True)


def test_check_output_refuses_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(CommandError, match="is a file; expected a folder"):
        check_output(tmp_path / "out", NAMES, overwrite=True)
    with pytest.raises(CommandError, match="can't be made inside it"):
        check_output(tmp_path / "out" / "deeper", NAMES, overwrite=True)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write in a read-only folder")
def test_check_output_refuses_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CommandError, match="can't be written"):
            check_output(tmp_path / "out", NAMES, overwrite=False)
    finally:
        tmp_path.chmod(0o700)


def test_check_output_refuses_where_the_system_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with pytest.raises(CommandError, match=r"can't be written \(Permission denied\)"):
        check_output(tmp_path / "out", NAMES, overwrite=False)


def test_check_output_refuses_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil._ntuple_diskusage(10**9, 10**9, 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    with pytest.raises(CommandError, match="disk .* is full: 0.0 MB free"):
        check_output(tmp_path / "out", NAMES, overwrite=False)
