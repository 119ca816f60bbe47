"""SAM2's classes from a config, and the masks they propose."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.ttm_tiny.train_segmenter import tiny_config
from ttm.segmentation.candidates import find_candidates, without_specks
from ttm.segmentation.sam2_loading import build_sam2, hub_files, load_checkpoint, public_config


def test_specks_go_and_rings_stay() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5:25, 5:25] = True
    mask[12:18, 12:18] = False
    ring = mask.copy()
    mask[35:37, 35:37] = True
    np.testing.assert_array_equal(without_specks(mask), ring)
    np.testing.assert_array_equal(without_specks(ring), ring)


def test_candidates_are_masks_of_some_size_and_differ() -> None:
    torch.manual_seed(0)
    model = build_sam2(tiny_config(64))
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    settings = {
        "points_per_side": 4,
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.0,
        "box_nms_thresh": 1.0,
    }
    found = find_candidates(model, image, settings)
    assert found.masks.shape[1:] == (48, 64) and found.masks.dtype == bool
    assert len(found.masks) == len(found.quality) and (np.diff(found.quality) <= 0).all()
    flat = found.masks.reshape(len(found.masks), -1).astype(float)
    shared = flat @ flat.T
    ious = shared / (flat.sum(1)[:, None] + flat.sum(1)[None] - shared)
    assert (ious[~np.eye(len(flat), dtype=bool)] <= 0.85).all()
    assert len(find_candidates(model, image, {**settings, "pred_iou_thresh": 1.1}).masks) == 0


def test_a_config_may_name_only_classes_of_sam2() -> None:
    config = tiny_config(64)
    config["memory_encoder"]["fuser"]["layer"]["_target_"] = "os.system"
    with pytest.raises(ValueError, match=r"memory_encoder.fuser.layer names 'os.system'"):
        build_sam2(config)
    config = tiny_config(64)
    config["image_encoder"]["trunk"]["depth"] = 3
    with pytest.raises(ValueError, match="cannot be built"):
        build_sam2(config)


def test_a_config_may_hold_no_interpolations(capsys: pytest.CaptureFixture[str]) -> None:
    hidden = "${oc.create:'{_target_: builtins.print, _args_: [run by a config]}'}"
    config = tiny_config(64)
    config["memory_encoder"]["fuser"]["layer"]["padding"] = hidden
    with pytest.raises(ValueError, match=r"memory_encoder.fuser.layer.padding is .* without interpolations"):
        build_sam2(config)
    config = tiny_config(64)
    config["image_encoder"]["trunk"]["stages"] = [1, hidden]
    with pytest.raises(ValueError, match=r"trunk.stages\[1\] is .* without interpolations"):
        build_sam2(config)
    with pytest.raises(ValueError, match="a key, is .* without interpolations"):
        build_sam2({**tiny_config(64), hidden: 1})
    assert "run by a config" not in capsys.readouterr().out


def test_public_configs_are_read_from_the_package() -> None:
    config = public_config("configs/sam2.1/sam2.1_hiera_t.yaml")
    assert config["image_size"] == 1024 and config["_target_"].endswith("SAM2VideoPredictor")
    assert config["image_encoder"]["trunk"]["stages"] == [1, 2, 7, 2]
    with pytest.raises(ValueError, match="is no file"):
        public_config("configs/sam3.yaml")
    with pytest.raises(ValueError, match="no public SAM2 model"):
        hub_files("facebook/sam2.1-hiera-gigantic")


def test_checkpoints_in_the_public_layout(tmp_path: Path) -> None:
    torch.manual_seed(1)
    written, read = build_sam2(tiny_config(64)), build_sam2(tiny_config(64))
    torch.save({"model": written.state_dict()}, tmp_path / "whole.pt")
    load_checkpoint(read, tmp_path / "whole.pt")
    for name, value in read.state_dict().items():
        torch.testing.assert_close(value, written.state_dict()[name], rtol=0, atol=0)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_checkpoint(read, tmp_path / "cut.pt")
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="does not fit its SAM2 config"):
        load_checkpoint(read, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="does not exist"):
        load_checkpoint(read, tmp_path / "none.pt")
    other = copy.deepcopy(tiny_config(64))
    other["num_maskmem"] = 5
    with pytest.raises(ValueError, match="does not fit"):
        load_checkpoint(build_sam2(other), tmp_path / "whole.pt")
