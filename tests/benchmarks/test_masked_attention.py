"""The packing benchmark: its split, its arithmetic, what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.masked_attention import main, split_tokens


def test_tokens_are_split_by_the_shares() -> None:
    owner = split_tokens(8192, (0.6, 0.2, 0.12, 0.08))
    assert owner.shape == (1, 8192)
    assert torch.bincount(owner[0]).tolist() == [4915, 1639, 983, 655]


def test_it_prints_and_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "gain.json"
    sizes = ["--tokens", "200", "--heads", "1", "--head-dim", "8", "--runs", "2"]
    assert main([*sizes, "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert found["ideal_gain"] == pytest.approx(2.3764, abs=1e-3)
    assert found["gain"] == pytest.approx(min(found["dense_seconds"]) / min(found["packed_seconds"]))
    assert found["share_of_ideal"] == pytest.approx(found["gain"] / found["ideal_gain"])
    assert len(found["dense_seconds"]) == 2 and found["largest_difference"] < 1e-5
    assert "ideal gain               2.38 x" in capsys.readouterr().out


def test_shares_that_are_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--shares", "0.5", "0.4"])
    assert "expected positive numbers that sum to 1" in capsys.readouterr().err
