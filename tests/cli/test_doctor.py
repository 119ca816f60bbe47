"""``ttm doctor`` tells what is here, what is missing and what is broken, with and without torch."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ttm.cli import main, weights_inventory
from ttm.cli.weights_inventory import hub_weights, safetensors_fault

WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "numpy", "diffusers", "transformers")))  # importing them fails
from ttm.cli import main
sys.exit(main(["doctor"]))
"""


def test_a_whole_file_has_no_fault_and_every_cut_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones((4, 4), np.float32), "b": np.zeros(3, np.int8)}, path)
    assert safetensors_fault(path) == ""
    whole = path.read_bytes()
    for length in (0, 7, 8, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "model.safetensors" in safetensors_fault(path), length
    path.write_bytes(struct.pack("<Q", 4) + b"nono")
    assert "no safetensors header" in safetensors_fault(path)


def test_the_hub_cache_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = tmp_path / "models--owner--name" / "blobs"
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    save_file({"a": np.ones(10, np.float32)}, blobs / "blob")
    (snapshot / "model.safetensors").symlink_to(blobs / "blob")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder, (found,) = hub_weights()
    assert (folder, found.name, found.fault) == (tmp_path, "owner/name", "")
    assert found.size == (blobs / "blob").stat().st_size  # once, not twice
    (blobs / "blob").write_bytes(b"cut")
    assert "model.safetensors" in hub_weights()[1][0].fault


def test_doctor_names_a_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "ttm-tiny" / "vae" / "model.safetensors"
    broken.parent.mkdir(parents=True)
    (tmp_path / "ttm-tiny" / "model_index.json").write_text(json.dumps({}))
    broken.write_bytes(b"cut")
    monkeypatch.setattr(weights_inventory, "EMBEDDED", tmp_path)
    assert main(["doctor"]) == 1
    assert "BROKEN: model.safetensors" in capsys.readouterr().out


def test_doctor_works_without_torch() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=root, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "does not load" in done.stdout
    assert "Traceback" not in done.stderr
