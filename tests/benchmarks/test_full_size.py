"""The program that measures the full size runs at a tiny one; without a GPU it says that nothing was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.full_size import FULL, main
from ttm.models.transformer_wan import MaskedWanTransformer3DModel


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_every_part_runs_and_says_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "full_size.md"
    assert main(["--tiny", "--steps", "1", "--output", str(table)]) == 0
    text = table.read_text(encoding="utf-8")
    assert text == capsys.readouterr().out
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in text.splitlines() if "|" in line}
    assert "a tiny model, whose figures mean nothing" in text
    assert float(rows["lora"][0]) > 0 and float(rows["all"][0]) > 0  # M parameters
    assert "goal 1.25" in rows["K = 2, 2 objects"][-1]
    assert "dense mask, 32 tokens" in rows and float(rows["packed"][2].split()[0]) > 1  # the ideal gain


def test_the_full_size_is_wans(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.device("meta"):
        model = MaskedWanTransformer3DModel(**FULL.host, condition_channels=32, num_masked_blocks=FULL.masked_blocks)
    new = sum(value.numel() for value in model.adapter_state_dict().values())
    assert sum(p.numel() for p in model.parameters()) - new == 1_418_996_800
    assert FULL.latents == (16, (81 - 1) // 4 + 1, 480 // 8, 832 // 8) and FULL.grid == (21, 30, 52)
    assert main([]) == 1
    assert "there is none here: nothing was measured" in capsys.readouterr().out
