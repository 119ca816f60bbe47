"""The segmenter as a whole, with untrained weights: saving, loading, moving, errors, what it hands back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from tools.ttm_tiny.train_segmenter import tiny_config
from ttm.segmentation import Segmenter
from ttm.segmentation import segmenter as module
from ttm.segmentation.candidates import Candidates
from ttm.segmentation.segmenter import PhraseNotFoundError

CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 8, "width": 8, "heads": 2, "layers": 1},
}
GENERATOR = {"points_per_side": 4, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


def _segmenter(**settings: Any) -> Segmenter:
    torch.manual_seed(0)
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    settings = {
        "mask_generator": GENERATOR,
        "contrast_phrases": ["blue"],
        "background_phrases": ["grey"],
        **settings,
    }
    return Segmenter(tiny_config(64), CLIP, preprocess, **settings)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return _segmenter()


@pytest.fixture
def sees_colours(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """An image of three squares, found as they are, and a CLIP that knows their colours."""
    image = np.full((40, 60, 3), 127, np.uint8)
    masks = np.zeros((4, 40, 60), bool)
    for n, colour in enumerate(COLOURS.values()):
        masks[n, 10:22, 4 + 18 * n : 18 + 18 * n] = True
        image[masks[n]] = colour
    masks[3, 30:, :] = True

    def crops(clip: Any, pixels: np.ndarray, mean: Any, std: Any) -> torch.Tensor:
        middle = torch.from_numpy(pixels[:, 8, 8].astype(np.float32)) - 127
        return torch.nn.functional.normalize(torch.cat([middle, torch.full((len(middle), 1), 20.0)], dim=1), dim=-1)

    def texts(clip: Any, phrases: list[str], length: int) -> torch.Tensor:
        rows = [
            [*(np.array(COLOURS[each], float) - 127), 20.0] if each in COLOURS else [0, 0, 0, 20.0] for each in phrases
        ]
        return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)

    found = Candidates(masks, np.array([0.9, 0.9, 0.9, 0.95], np.float32))
    monkeypatch.setattr(module, "find_candidates", lambda *_: found)
    monkeypatch.setattr(module.grounding, "embed_crops", crops)
    monkeypatch.setattr(module.grounding, "embed_phrases", texts)
    return image


def test_ids_follow_the_order_of_the_phrases(segmenter: Segmenter, sees_colours: np.ndarray) -> None:
    ids = segmenter.segment(sees_colours, ["green", "red"])
    assert ids.dtype == np.uint8 and ids.shape == (40, 60)
    assert (ids[10:22, 22:36] == 1).all() and (ids[10:22, 4:18] == 2).all()
    assert (ids > 0).sum() == 2 * 12 * 14


def test_the_error_says_what_was_not_found_and_what_was_seen(segmenter: Segmenter, sees_colours: np.ndarray) -> None:
    sees_colours[10:22, 4:18] = 127  # the red square is gone
    with pytest.raises(
        PhraseNotFoundError, match=r"matches 'red' \(probability .*What was seen: .*'blue' .*x 46, y 15"
    ) as caught:
        segmenter.segment(sees_colours, ["green", "red"])
    assert caught.value.phrases == ("red",) and "'grey'" not in str(caught.value)


def test_a_phrase_that_is_asked_for_twice(segmenter: Segmenter, sees_colours: np.ndarray) -> None:
    with pytest.raises(PhraseNotFoundError, match=r"'red' \(asked for more often than it is there\)"):
        segmenter.segment(sees_colours, ["red", "red"])


def test_an_image_without_any_mask(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    none = Candidates(np.zeros((0, 16, 16), bool), np.zeros(0, np.float32))
    monkeypatch.setattr(module, "find_candidates", lambda *_: none)
    with pytest.raises(PhraseNotFoundError, match="No object at all was seen"):
        segmenter.segment(np.zeros((16, 16, 3), np.uint8), ["ball"])


@pytest.mark.parametrize(
    ("image", "phrases", "message"),
    [
        (np.zeros((16, 16), np.uint8), ["ball"], r"uint8 \[16, 16\]; expected uint8 \[H, W, 3\]"),
        (np.zeros((16, 16, 3), np.uint16), ["ball"], "uint16"),
        (np.full((16, 16, 3), np.nan), ["ball"], "float64"),
        (np.zeros((0, 16, 3), np.uint8), ["ball"], "at least 8 x 8"),
        (np.zeros((16, 16, 3), np.uint8), [], "0 phrases; expected 1 to"),
        (np.zeros((16, 16, 3), np.uint8), ["ball"] * 13, "13 phrases"),
        (np.zeros((16, 16, 3), np.uint8), ["ball", " "], "not empty"),
        (np.zeros((16, 16, 3), np.uint8), "ball", "expected a list"),
    ],
)
def test_bad_input_of_segment(segmenter: Segmenter, image: Any, phrases: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segmenter.segment(image, phrases)


def test_bad_input_of_track(segmenter: Segmenter) -> None:
    frames, ids = np.zeros((3, 16, 16, 3), np.uint8), np.ones((16, 16), np.uint8)
    with pytest.raises(ValueError, match=r"expected uint8 \[T, H, W, 3\]"):
        segmenter.track(frames[0], ids)
    with pytest.raises(ValueError, match="expected that of a frame"):
        segmenter.track(frames, ids[:8])
    with pytest.raises(ValueError, match="0 everywhere"):
        segmenter.track(frames, 0 * ids)
    with pytest.raises(ValueError, match="expected ids 0..12"):
        segmenter.track(frames, 13 * ids)


def test_tracking_keeps_the_first_frame_and_its_ids(segmenter: Segmenter) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (4, 40, 56, 3), dtype=np.uint8)
    first = np.zeros((40, 56), np.int64)
    first[4:20, 4:20], first[24:36, 30:50] = 2, 7
    with torch.no_grad():  # untrained, every object may count as hidden: a bias of the object score brings them out
        segmenter.sam2.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(50.0)
    calls: list[int] = []
    handle = segmenter.register_forward_pre_hook(lambda *_: calls.append(1))
    ids = segmenter.track(frames, first)
    handle.remove()
    assert ids.shape == (4, 40, 56) and ids.dtype == np.uint8 and calls == [1]
    np.testing.assert_array_equal(ids[0], first)
    assert set(np.unique(ids)) == {0, 2, 7} and (ids[1:] > 0).any()
    np.testing.assert_array_equal(segmenter.track(frames[:1], first)[0], first)


def test_weights_in_16_bit_stay_so_and_answer_nearly_the_same() -> None:
    wide, narrow = _segmenter(), _segmenter().to(torch.float16)
    frames = np.random.default_rng(1).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    first = np.zeros((32, 32), np.uint8)
    first[8:24, 8:24] = 1
    for each in (wide, narrow):
        with torch.no_grad():
            each.sam2.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(50.0)
    same = (wide.track(frames, first) == narrow.track(frames, first)).mean()
    assert same > 0.95 and narrow.dtype == torch.float16 and narrow.clip.logit_scale.dtype == torch.float16


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="points_per_sidee"):
        _segmenter(mask_generator={"points_per_sidee": 4})


def test_public_weights_from_local_files(tmp_path: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    source = _segmenter()
    torch.save({"model": source.sam2.state_dict()}, tmp_path / "sam2.pt")
    (tmp_path / "ttm-test-clip.json").write_text(json.dumps(CLIP))
    save_file(
        {name: value.contiguous() for name, value in source.clip.state_dict().items()},
        tmp_path / "clip.safetensors",
    )
    open_clip.add_model_config(tmp_path / "ttm-test-clip.json")
    loaded = Segmenter.from_public(
        (tiny_config(64), tmp_path / "sam2.pt"),
        "ttm-test-clip",
        str(tmp_path / "clip.safetensors"),
        quality_weight=1.0,
    )
    assert loaded.config["quality_weight"] == 1.0 and loaded.config["phrase_template"] == "a photo of a {}"
    for name, value in source.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(ValueError, match="open_clip cannot load"):
        Segmenter.from_public((tiny_config(64), tmp_path / "sam2.pt"), "ttm-test-clip", "no-such-tag")


class _Holder(DiffusionPipeline):
    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.register_modules(segmenter=segmenter)


def test_it_is_a_component_of_a_diffusers_pipeline(segmenter: Segmenter, tmp_path: Path) -> None:
    _Holder(segmenter).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["segmenter"] == ["ttm.segmentation.segmenter", "Segmenter"]
    loaded = _Holder.from_pretrained(tmp_path, torch_dtype=torch.bfloat16).segmenter
    assert isinstance(loaded, Segmenter) and loaded.dtype == torch.bfloat16
    assert loaded.config["mask_generator"] == GENERATOR


FRESH = """
import sys, numpy as np, hydra
from hydra.core.global_hydra import GlobalHydra
from ttm.segmentation import Segmenter
folder = sys.argv.pop()
segmenter = Segmenter.from_pretrained(folder)
assert str(segmenter.dtype) == "torch.float32", segmenter.dtype
given = np.load(folder + "/given.npz")
np.save(folder + "/answer.npy", segmenter.track(given["frames"], given["first"]))
assert not GlobalHydra.instance().is_initialized()
@hydra.main(version_base=None, config_path=None)
def main(config):
    segmenter.track(given["frames"], given["first"])
    assert GlobalHydra.instance().is_initialized()
    print("hydra works")
main()
"""


def test_a_saved_folder_answers_the_same_in_a_fresh_process_and_hydra_still_works(tmp_path: Path) -> None:
    saved = _segmenter().to(torch.float16)
    saved.save_pretrained(tmp_path)
    frames = np.random.default_rng(2).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    first = np.zeros((32, 32), np.uint8)
    first[8:24, 8:24] = 3
    np.savez(tmp_path / "given.npz", frames=frames, first=first)
    command = [
        sys.executable,
        "-c",
        FRESH,
        f"hydra.run.dir={tmp_path}",
        "hydra.output_subdir=null",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0 and "hydra works" in done.stdout, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "answer.npy"), saved.track(frames, first))
