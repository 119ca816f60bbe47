"""The program that makes ttm-tiny's autoencoder, at a small size."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo

from tools.ttm_tiny import train_autoencoder


def test_going_on_trains_the_residual_blocks_of_the_decoder_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_autoencoder, "LINEAR_SCENES", 8)
    monkeypatch.setattr(train_autoencoder, "POOL", 8)
    monkeypatch.setattr(train_autoencoder, "measure", partial(train_autoencoder.measure, scenes=1))

    def made(name: str, *arguments: str) -> AutoencoderKLLTXVideo:
        output = ["--run", str(tmp_path / f"{name}-run"), "--output", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", ["train_autoencoder", *arguments, *output])
        train_autoencoder.main()
        return AutoencoderKLLTXVideo.from_pretrained(tmp_path / name)

    linear = made("linear", "--minutes", "0")
    trained = made("trained", "--minutes", "0.03", "--decoder-of", str(tmp_path / "linear"))
    assert "at the start: psnr_db" in capsys.readouterr().out
    before, after = linear.state_dict(), trained.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("decoder.") and ".resnets." in name for name in changed)
    assert linear.latents_std.std() > 0  # its statistics were measured
