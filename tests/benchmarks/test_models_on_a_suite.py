"""Each kind of model makes a video of a sample, by its real class at a tiny size."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffSparseControlNetPipeline,
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    EulerDiscreteScheduler,
    MotionAdapter,
    SparseControlNetModel,
    StableVideoDiffusionPipeline,
    TextToVideoZeroPipeline,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
)

from benchmarks.baselines import BASELINES, DiffusersBaseline, find_baseline, load_baseline
from benchmarks.generators import OwnPipeline
from benchmarks.manifest import Sample
from benchmarks.true_clips import true_trajectory
from benchmarks.variants import FewShot, FirstFrameAlone
from tests.pipelines.conftest import host, image, make_pipeline, masks, plan, prompt  # noqa: F401  # fixtures
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan
from ttm.pipelines.few_shot import FewShotPipeline

SMALL = {"num_frames": 5, "height": 32, "width": 32, "num_inference_steps": 1}


@pytest.fixture
def sample(tmp_path: Path, image: np.ndarray, plan: PromptPlan, masks: np.ndarray) -> Sample:  # noqa: F811
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(masks.astype(np.uint8)).save(tmp_path / "masks.png")
    MaskTrajectory(np.repeat(masks[None], 5, axis=0), 6.0).save(tmp_path / "t.npz")
    files = (tmp_path / "image.png", tmp_path / "masks.png", tmp_path / "t.npz")
    return Sample("a", plan.prompt, image=files[0], masks=files[1], trajectory=files[2], plan=plan)


def check(model: Any, sample: Sample, fps: float, size: tuple[int, int] = (32, 32)) -> None:
    """Frames as promised, the same for the same seed and others for another."""
    first, again, other = (model.generate(sample, seed) for seed in (1, 1, 2))
    assert first.frames.dtype == np.uint8 and first.frames.shape == (5, *size, 3) and first.fps == fps
    assert np.array_equal(first.frames, again.frames) and not np.array_equal(first.frames, other.frames)
    assert model.inputs(sample) == []


def test_the_librarys_own(make_pipeline: Callable[..., Any], sample: Sample) -> None:  # noqa: F811
    model = OwnPipeline(make_pipeline(), "tiny", "hash", {"guidance_scale": 1.0, "num_frames": None})
    check(model, sample, 8.0)
    made = model.generate(sample, 1)
    assert made.plan == sample.plan and made.trajectory is not None
    assert model.identity["sampling"] == {"guidance_scale": 1.0} and model.identity["give"] == ["masks", "plan"]
    given = OwnPipeline(make_pipeline(), "tiny", "hash", {}, ["plan", "trajectory"]).generate(sample, 1)
    assert given.trajectory is not None and sample.trajectory is not None
    assert np.array_equal(given.trajectory.ids, MaskTrajectory.load(sample.trajectory).ids)
    assert given.fps == 8.0 and given.trajectory_given and not made.trajectory_given
    with pytest.raises(ValueError, match="expected some of"):
        OwnPipeline(make_pipeline(), "tiny", "hash", {}, ["everything"])


def test_a_trajectory_is_given_at_the_times_of_the_models_video(
    tmp_path: Path,
    make_pipeline: Callable[..., Any],  # noqa: F811
    sample: Sample,
    masks: np.ndarray,  # noqa: F811
) -> None:
    ids = np.stack([np.roll(masks, time, axis=1) for time in range(32)])  # a number that can't be packed
    MaskTrajectory(ids, 6.0).save(tmp_path / "t.npz")
    for num_frames, nearest in ((None, [0, 1, 1, 2, 3]), (9, [0, 1, 1, 2, 3, 4, 4, 5, 6])):
        sampling = {"num_inference_steps": 1, "num_frames": num_frames}
        made = OwnPipeline(make_pipeline(), "tiny", "hash", sampling, ["plan", "trajectory"]).generate(sample, 1)
        assert made.trajectory is not None and np.array_equal(made.trajectory.ids, ids[nearest])
        assert made.fps == 8.0 and len(made.frames) == len(nearest)
        assert sample.trajectory is not None
        assert made.trajectory == true_trajectory(sample.trajectory, made.frames.shape[:3], made.fps)
    MaskTrajectory(ids[:3], 6.0).save(tmp_path / "t.npz")
    with pytest.raises(ValueError, match=r"the true motion t\.npz lasts 0\.50 s; .* 4 frames at 6 a second, not 3"):
        OwnPipeline(make_pipeline(), "tiny", "hash", {}, ["plan", "trajectory"]).generate(sample, 1)


def test_the_twin_sees_neither_masks_nor_plan(make_pipeline: Callable[..., Any], sample: Sample) -> None:  # noqa: F811
    model = FirstFrameAlone(make_pipeline(), "twin", "hash", {"num_inference_steps": 1, "guidance_scale": None})
    check(model, sample, 8.0)
    bare = Sample("a", sample.prompt, image=sample.image)
    assert np.array_equal(model.generate(bare, 1).frames, model.generate(sample, 1).frames)
    assert model.generate(sample, 1).trajectory is None


def test_a_few_shot_model_follows_the_trajectory_at_its_own_rate(
    tmp_path: Path,
    save_stable_diffusion: Callable[..., Path],
    sample: Sample,
    masks: np.ndarray,  # noqa: F811
) -> None:
    ids = np.stack([np.roll(masks, time, axis=1) for time in range(9)])
    MaskTrajectory(ids, 16.0).save(tmp_path / "t.npz")
    size = {"num_frames": 4, "height": 32, "width": 32, "num_inference_steps": 1, "max_sequence_length": 8}
    pipe = FewShotPipeline.from_base(str(save_stable_diffusion(tmp_path / "base")), **size)
    model = FewShot(pipe, "few-shot", "hash", {"guidance_scale": 1.0, "num_frames": None})
    check(model, sample, 8.0)  # 5 frames: half a second, as the trajectory
    made = model.generate(sample, 1)
    assert made.trajectory is not None and np.array_equal(made.trajectory.ids, ids[::2]) and made.trajectory_given
    assert model.identity == {"few-shot": "hash", "sampling": {"guidance_scale": 1.0}, "fps": 8.0}
    with pytest.raises(ValueError, match="has no trajectory; expected one"):
        model.generate(Sample("a", sample.prompt, image=sample.image), 1)


def test_stable_video_diffusion(tmp_path: Path, sample: Sample) -> None:
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4
    )
    vision = CLIPVisionConfig(
        hidden_size=32, projection_dim=32, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=112
    )
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700,
    )
    extractor = CLIPImageProcessor()
    pipe = StableVideoDiffusionPipeline(vae, CLIPVisionModelWithProjection(vision), _svd_unet(), scheduler, extractor)
    pipe.save_pretrained(tmp_path / "svd")
    found = find_baseline(f"svd:{tmp_path / 'svd'}")
    assert found is not None
    model = load_baseline(*found, SMALL)
    check(model, sample, 7.0)
    assert model.name == "Stable Video Diffusion XT" and model.identity["weights"] != str(tmp_path / "svd")


def _svd_unet() -> UNetSpatioTemporalConditionModel:
    return UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 32),
        layers_per_block=1,
        sample_size=16,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=32,
        num_attention_heads=2,
        projection_class_embeddings_input_dim=24,
        addition_time_embed_dim=8,
    )


def test_wan_image_to_video(tmp_path: Path, make_pipeline: Callable[..., Any], sample: Sample) -> None:  # noqa: F811
    own = make_pipeline()
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=12,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
    )
    pipe = WanImageToVideoPipeline(own.tokenizer, own.text_encoder, own.vae, own.scheduler, transformer=transformer)
    pipe.save_pretrained(tmp_path / "wan")
    found = find_baseline(f"wan-i2v:{tmp_path / 'wan'}")
    assert found is not None
    check(load_baseline(*found, SMALL), sample, 16.0)


def test_animatediff_with_sparsectrl(
    tmp_path: Path, save_stable_diffusion: Callable[..., Path], sample: Sample
) -> None:
    parts = _stable_diffusion(save_stable_diffusion(tmp_path / "sd"))
    adapter = MotionAdapter.from_pretrained(tmp_path / "sd" / "motion_adapter")
    controlnet = SparseControlNetModel(
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=2,
        motion_num_attention_heads=2,
    )
    pipe = AnimateDiffSparseControlNetPipeline(**parts, motion_adapter=adapter, controlnet=controlnet)
    pipe.save_pretrained(tmp_path / "animatediff")
    found = find_baseline(f"animatediff-sparsectrl:{tmp_path / 'animatediff'}")
    assert found is not None
    check(load_baseline(*found, SMALL), sample, 8.0)


def test_text_to_video_zero(tmp_path: Path, save_stable_diffusion: Callable[..., Path], sample: Sample) -> None:
    parts = _stable_diffusion(save_stable_diffusion(tmp_path / "sd"))
    pipe = TextToVideoZeroPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.save_pretrained(tmp_path / "zero")
    found = find_baseline(f"text2video-zero:{tmp_path / 'zero'}")
    assert found is not None
    check(load_baseline(*found, SMALL | {"num_inference_steps": None}), sample, 4.0)


def _stable_diffusion(folder: Path) -> dict[str, Any]:
    return {
        "vae": AutoencoderKL.from_pretrained(folder / "vae"),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
        "tokenizer": PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
        "unet": UNet2DConditionModel.from_pretrained(folder / "unet"),
        "scheduler": DDIMScheduler(),
    }


def test_every_baseline_names_a_pipeline_of_diffusers_and_its_arguments() -> None:
    for baseline in BASELINES.values():
        taken = inspect.signature(getattr(diffusers, baseline.pipeline).__call__).parameters
        words = {baseline.frames, "height", "width", "generator", "num_inference_steps", *baseline.arguments}
        words |= {baseline.image} if baseline.image else set()
        words |= {"prompt"} if baseline.text else set()
        assert words <= set(taken), baseline.title
        assert all(hasattr(diffusers, part.kind) for part in baseline.parts.values())


def test_models_that_can_not_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_baseline("ttm-tiny") is None and find_baseline("some/folder") is None
    assert find_baseline("ltx") == (BASELINES["ltx"], "Lightricks/LTX-Video")
    with pytest.raises(ValueError, match="LTX-Video: the weights .* expected a folder"):
        load_baseline(BASELINES["ltx"], str(tmp_path / "nothing"), {})

    class Taken:
        def __call__(self, words: str) -> None: ...

    with pytest.raises(ValueError, match=r"takes no \['guidance_scale'\]"):
        DiffusersBaseline(BASELINES["ltx"], Taken(), "x", {"guidance_scale": 3.0})
