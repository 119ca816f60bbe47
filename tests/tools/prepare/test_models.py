"""The embedded models on scenes that they know: ids that follow the objects, latents as the stages' cache has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.host import encoder_digest, load_vae
from stages.latent_cache import frames_to_tensor
from tools.prepare.draft import Draft
from tools.prepare.flow import prepare
from tools.prepare.models import EMBEDDED, Models
from tools.prepare.settings import ClipSettings, ModelSettings
from tools.prepare.sheet import main as sheet
from tools.prepare.windows import Window
from ttm.data.clip_manifest import ClipFolderManifest
from ttm.data.prepared_clips import read_clips
from ttm.data.synthetic import SyntheticWorld
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.autoencoders import encode_video

CLIPS = ClipSettings(num_frames=(5,), fps=8.0, sizes=((128, 128),), max_clips=1)


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat scene of the held-out world as a video with its sentence."""
    folder = tmp_path_factory.mktemp("scene")
    scene = SyntheticWorld("test", num_objects=(1, 1))[3]
    write_video(folder / "scene.mp4", scene.frames, 8)
    scene.plan.save(folder / "scene.plan.json")
    MaskTrajectory(scene.ids, 8).save(folder / "true.npz")
    return folder


def test_embedded_models_prepare_a_clip(tmp_path: Path, scene_folder: Path) -> None:
    models = ModelSettings(segmenter="ttm-tiny", vae="ttm-tiny", device="cpu")
    assert prepare(scene_folder, tmp_path / "out", CLIPS, models, say=lambda line: None) == (1, 0)
    (clip,) = read_clips(tmp_path / "out")
    true = MaskTrajectory.load(scene_folder / "true.npz").ids[:5]
    found = clip.trajectory.ids
    assert ((found > 0) & (true > 0)).sum() > 0.5 * ((found > 0) | (true > 0)).sum()
    vae = load_vae(str(EMBEDDED))
    assert clip.encoder == encoder_digest(vae) and ClipFolderManifest.load(tmp_path / "out").encoders == {clip.encoder}
    assert clip.latents is not None
    with torch.no_grad():
        expected = encode_video(vae, frames_to_tensor([clip.trajectory.to_video()]))[0].half().numpy()
    np.testing.assert_allclose(clip.latents["motion"], expected, atol=2e-2)
    assert clip.latents["video"].shape == expected.shape and clip.latents["video"].dtype == np.float16
    picture = tmp_path / "sheet.png"
    assert sheet([str(tmp_path / "out"), "-o", str(picture), "--vae", "ttm-tiny"]) == 0 and picture.stat().st_size
    picture.unlink()
    assert sheet([str(tmp_path / "out"), "-o", str(picture), "--clip", clip.clip_id]) == 0 and picture.stat().st_size
    assert sheet([str(tmp_path / "out"), "-o", str(picture), "--clip", "none"]) == 2


def test_frames_between_annotated_ones_are_tracked(scene_folder: Path) -> None:
    scene = SyntheticWorld("test", num_objects=(1, 1))[3]
    true, known = scene.ids[:9], np.zeros(9, bool)
    known[[0, 4, 8]] = True
    held = true[[0, 0, 0, 4, 4, 4, 4, 8, 8]]
    window = Window("a", 0, 9, 128, 128, 0.0, "shard-00000.tar")
    draft = Draft("a.mp4", window, 24.0, scene.frames[:9], held, known, plan=scene.plan, in_order=True)
    models = Models(replace(CLIPS, between="track"), ModelSettings(segmenter="ttm-tiny", device="cpu"))
    ids = models(draft).ids
    assert ids is not None
    np.testing.assert_array_equal(ids[known], true[known])
    overlap = [((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum() for a, b in zip(ids, true, strict=True)]
    assert min(overlap) > 0.4


@pytest.mark.parametrize(("wrong", "words"), [({"num_frames": (6,)}, r"1 \+ 4 k"), ({"sizes": ((100, 128),)}, "of 16")])
def test_shapes_that_the_autoencoder_can_not_pack(
    tmp_path: Path, scene_folder: Path, wrong: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        prepare(scene_folder, tmp_path / "out", replace(CLIPS, **wrong), ModelSettings(vae="ttm-tiny"))  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "work/settings.json").exists()


def test_models_that_are_not_there(tmp_path: Path, scene_folder: Path) -> None:
    for models in (ModelSettings(segmenter=str(tmp_path)), ModelSettings(vae=str(tmp_path))):
        with pytest.raises((ValueError, OSError)):
            prepare(scene_folder, tmp_path / "out", CLIPS, models, say=lambda line: None)
