"""The program that measures the presets runs; without a GPU it says that nothing was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.memory import HEAD, main


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_a_row_for_every_preset_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "memory.md"
    assert main(["--tiny", "--presets", "none", "8gb", "--steps", "1", "--output", str(table)]) == 0
    lines = table.read_text(encoding="utf-8").splitlines()
    assert lines == capsys.readouterr().out.splitlines()
    assert "a tiny model, whose figures mean nothing; 3 frames of 32 x 48" in lines[0]
    assert lines[2:4] == list(HEAD) and [line.split(" | ")[0] for line in lines[4:]] == ["| none", "| 8gb"]
    assert all(line.count("|") == HEAD[0].count("|") and line.count("not told") == 2 for line in lines[4:])
    trained = [float(line.split(" | ")[1]) for line in lines[4:]]
    assert trained[0] > trained[1]


def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "there is none here: nothing was measured" in capsys.readouterr().out


def test_presets_of_several_devices_are_not_a_cards(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--presets", "shared"])
    assert "invalid choice: 'shared'" in capsys.readouterr().err
