"""Bad input: one clear ValueError, before any model runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from PIL import Image

from ttm import MaskTrajectory, ObjectPrompt, Pipeline, PromptPlan
from ttm.objects import MAX_OBJECTS

Make = Callable[..., Pipeline]
Pixels = NDArray[np.uint8]
Arguments = dict[str, Any]

GREY = np.full((32, 32, 3), 90, np.uint8)
IDS = np.zeros((32, 32), np.uint8)
IDS[4:14, 4:14], IDS[18:28, 16:30] = 1, 2
MOVES = np.repeat(IDS[None], 5, axis=0)
CORNER = np.zeros((32, 64), np.uint8)
CORNER[4:8, 2:8], CORNER[4:8, 28:36] = 1, 2


@pytest.fixture
def untouched(pipe: Pipeline) -> Pipeline:
    """A pipeline none of whose models may run."""

    def forbidden(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a model ran before the input was checked")

    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.forward = forbidden
    pipe.vae.encode = pipe.vae.decode = forbidden
    return pipe


def _refused(pipe: Pipeline, plan: PromptPlan, match: str, changes: Arguments) -> None:
    arguments: Arguments = {"image": GREY, "plan": plan, "masks": IDS, **changes}
    with pytest.raises(ValueError, match=match):
        pipe(**arguments)


IMAGES: list[tuple[Any, str]] = [
    (GREY[..., 0], r"shape \[32, 32\]; expected \[H, W, 3\]"),
    (np.zeros((32, 32, 4), np.uint8), r"\[32, 32, 4\]; expected \[H, W, 3\]"),
    (np.zeros((0, 32, 3), np.uint8), "no empty axis"),
    (np.zeros((1, 32, 32, 3), np.uint8), r"expected \[H, W, 3\]"),
    (GREY.astype(np.uint16) * 256, "image is uint16 .*expected uint8"),
    (GREY.astype(np.float32) / 255, "image is float32 .*expected uint8"),
    (np.full((32, 32, 3), np.nan, np.float32), "NaN"),
    (GREY > 50, "image is bool"),
    (torch.zeros(3, 32, 32), "image is a Tensor; expected a PIL image, a path, or a uint8 array"),
    (None, "image is a NoneType"),
    (Image.fromarray(np.zeros((8, 8), np.uint16)), "more than 8 bits a channel"),
    (Image.fromarray(np.zeros((8, 8), np.int32)), "more than 8 bits a channel"),
    (Image.fromarray(np.zeros((8, 8), np.float32)), "more than 8 bits a channel"),
    (Image.new("RGB", (0, 5)), "expected at least one pixel"),
]


@pytest.mark.parametrize(("image", "match"), IMAGES)
def test_images(untouched: Pipeline, plan: PromptPlan, image: Any, match: str) -> None:
    _refused(untouched, plan, match, {"image": image})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    for name in ("whole.png", "whole.jpg"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep_grey.png")
    _deep_colour_png(tmp_path / "deep_colour.png")
    return tmp_path


def _deep_colour_png(path: Path) -> None:
    import cv2

    assert cv2.imwrite(str(path), np.full((8, 8, 3), 40000, np.uint16))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nothing.png", r"nothing.png' is no file"),
        ("cut_whole.png", r"cut_whole.png' cannot be read .*expected a whole PNG"),
        ("cut_whole.jpg", r"cut_whole.jpg' cannot be read .*expected a whole PNG"),
        ("empty.png", r"empty.png' is in no image format"),
        ("text.png", r"text.png' is in no image format"),
        ("deep_grey.png", r"deep_grey.png' has mode 'I;16.*more than 8 bits"),
        ("deep_colour.png", r"deep_colour.png' has mode 'RGB;16.*more than 8 bits"),
    ],
)
def test_image_files(untouched: Pipeline, plan: PromptPlan, files: Path, name: str, match: str) -> None:
    for path in (files / name, str(files / name)):
        _refused(untouched, plan, match, {"image": path})


MASKS: list[tuple[Any, str]] = [
    (np.zeros((16, 32), np.uint8) + 1, r"masks have size \[16, 32\]; expected that of the image, \[32, 32\]"),
    (np.zeros((32, 32), np.uint8), "background"),
    (IDS[None], r"expected \[H, W\]"),
    (IDS.astype(np.float32), "dtype float32; expected integers"),
    (IDS.astype(np.int64) - 1, r"values -1..1; expected ids"),
    (IDS * 10, f"expected ids 0..{MAX_OBJECTS}"),
    (np.minimum(IDS, 1), r"ids \[1\]; expected \[1, 2\]"),
    (IDS + (IDS > 0), r"ids \[2, 3\]; expected \[1, 2\]"),
    ([IDS == 1], r"ids \[1\]; expected \[1, 2\]: one for each object of the plan"),
    ([IDS == 1, IDS == 2, IDS == 0], r"ids \[1, 2, 3\]; expected \[1, 2\]"),
    ([IDS == 1, IDS == 7], r"masks\[1\] has no visible pixel"),
    ([IDS == 1, (IDS == 2)[:16]], r"masks\[1\] is bool \[16, 32\]"),
    ([IDS, IDS], "expected bool"),
    ([], "holds 0 masks"),
    ([IDS == 1] * (MAX_OBJECTS + 1), f"holds {MAX_OBJECTS + 1} masks; expected 1 to {MAX_OBJECTS}"),
]


@pytest.mark.parametrize(("masks", "match"), MASKS)
def test_masks(untouched: Pipeline, plan: PromptPlan, masks: Any, match: str) -> None:
    _refused(untouched, plan, match, {"masks": masks})


TRAJECTORIES: list[tuple[Any, str]] = [
    (MOVES, "trajectory is a ndarray; expected a ttm.MaskTrajectory"),
    (MaskTrajectory(MOVES[:4]), r"num_frames is 4.*nearest are 1 and 5.*resample"),
    (MaskTrajectory(MOVES + 1), r"ids \[1, 2, 3\]; expected ids of 1..2"),
    (MaskTrajectory(MOVES * 0), r"ids \[\]; expected ids of 1..2"),
    (MaskTrajectory(MOVES[:, :, :16]), r"size \[32, 16\]; expected the aspect ratio"),
]


@pytest.mark.parametrize(("trajectory", "match"), TRAJECTORIES)
def test_trajectories(untouched: Pipeline, plan: PromptPlan, trajectory: Any, match: str) -> None:
    _refused(untouched, plan, match, {"trajectory": trajectory, "masks": None})
    if isinstance(trajectory, MaskTrajectory):
        with pytest.raises(ValueError, match=match):
            untouched.motion_to_video(GREY, plan, trajectory)


OTHERS: list[tuple[Arguments, str]] = [
    ({"num_frames": 16}, "num_frames is 16.*1 \\+ a multiple of 4 frames; nearest are 13 and 17"),
    ({"num_frames": 2}, "nearest are 1 and 5"),
    ({"num_frames": 0}, "num_frames is 0; expected a whole number from 1"),
    ({"num_frames": 5.0}, "num_frames is 5.0"),
    ({"trajectory": MaskTrajectory(MOVES), "num_frames": 9}, "the trajectory has 5 frames"),
    ({"height": 40}, r"height is 40; expected a multiple of 16 pixels \(nearest: 32 and 48\)"),
    ({"width": 8}, r"width is 8; expected a multiple of 16 pixels \(nearest: 16\)"),
    ({"width": "32"}, "width is '32'"),
    ({"num_inference_steps": 0}, "num_inference_steps is 0"),
    ({"motion_num_inference_steps": -1}, "num_inference_steps is -1"),
    ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
    ({"image_guidance_scale": -1}, "image_guidance_scale is -1"),
    ({"motion_guidance_scale": "much"}, "guidance_scale is 'much'"),
    ({"negative_prompt": 3}, "negative_prompt is a int"),
    ({"output_type": "gif"}, "output_type is 'gif'; expected one of pil, np, pt, latent"),
    ({"callback_on_step_end_tensor_inputs": ["noise"]}, r"names \['noise'\]; expected some of \['latents'"),
    ({"plan": None, "prompt": None}, "prompt is None; expected a sentence"),
    ({"plan": None, "prompt": "  "}, "expected a sentence"),
    ({"plan": {"prompt": "x"}}, "plan is a dict; expected a ttm.PromptPlan"),
    ({"masks": None}, "no segmenter .*expected masks="),
    ({"plan": None, "prompt": "Beautiful."}, "(?i)object"),
    ({"image": np.zeros((32, 64, 3), np.uint8), "masks": CORNER}, r"Object 1 \('red ball'\) lies outside"),
]


@pytest.mark.parametrize(("changes", "match"), OTHERS)
def test_other_arguments(untouched: Pipeline, plan: PromptPlan, changes: Arguments, match: str) -> None:
    _refused(untouched, plan, match, changes)


UNET: list[tuple[Arguments, str]] = [
    ({"num_frames": 0}, "num_frames is 0; expected a whole number from 1"),
    ({"height": 36}, r"height is 36; expected a multiple of 8 pixels \(nearest: 32 and 40\)"),
    ({"num_inference_steps": 1001}, "num_inference_steps is 1001; expected at most the 1000 timesteps"),
    ({"masks": np.minimum(IDS, 1)}, r"ids \[1\]; expected \[1, 2\]"),
    ({"trajectory": MaskTrajectory(MOVES), "num_frames": 9}, "the trajectory has 5 frames"),
]


@pytest.mark.parametrize("host", ["unet"])
@pytest.mark.parametrize(("changes", "match"), UNET)
def test_the_other_host_refuses_in_its_own_numbers(
    untouched: Pipeline, plan: PromptPlan, changes: Arguments, match: str
) -> None:
    _refused(untouched, plan, match, changes)


@pytest.mark.parametrize("host", ["unet"])
def test_other_components_that_do_not_fit(untouched: Pipeline, make_pipeline: Make, plan: PromptPlan) -> None:
    _refused(make_pipeline(max_sequence_length=13), plan, "max_sequence_length is 13; expected at most 12", {})
    untouched.scheduler = DDIMScheduler()
    _refused(untouched, plan, "clip_sample=True", {})
    untouched.transformer.register_to_config(cross_attention_dim=24)
    _refused(untouched, plan, "text_width is 24; expected 16", {})


def test_more_objects_than_the_limit(untouched: Pipeline) -> None:
    several = ", ".join(f"the {name} ball moves left" for name in "red blue green grey pink tan".split())
    prompt = f"{several}, {several.replace('ball', 'cube')}, and the white star stays."
    with pytest.raises(ValueError, match=rf"13 objects.*{MAX_OBJECTS}|{MAX_OBJECTS}.*13"):
        untouched(GREY, prompt, masks=IDS)
    with pytest.raises(ValueError, match=f"{MAX_OBJECTS + 1} objects; expected 1 to {MAX_OBJECTS}"):
        PromptPlan("x", "x", (ObjectPrompt("a", "a moves"),) * (MAX_OBJECTS + 1))


def test_the_stages_alone_check_too(untouched: Pipeline, plan: PromptPlan) -> None:
    first: Any = untouched.image_to_motion
    second: Any = untouched.motion_to_video
    with pytest.raises(ValueError, match="prompt is ''; expected the text of the motion"):
        first(GREY, "", IDS)
    with pytest.raises(ValueError, match=r"ids \[1\]; expected \[1, 2\]"):
        first(GREY, plan, np.minimum(IDS, 1))
    with pytest.raises(ValueError, match="expected 'trajectory' or 'latent'"):
        first(GREY, plan, IDS, output_type="pil")
    with pytest.raises(ValueError, match=r"latents is \[1, 4, 2, 4, 8\]; expected .*\[1, 4, 2, 4, 4\]"):
        first(GREY, plan, IDS, latents=torch.zeros(1, 4, 2, 4, 8))
    with pytest.raises(ValueError, match="plan is a str; expected a ttm.PromptPlan"):
        second(GREY, "the ball moves", MaskTrajectory(MOVES))


def test_components_that_do_not_fit(untouched: Pipeline, plan: PromptPlan) -> None:
    untouched.transformer.register_to_config(condition_channels=0)
    _refused(untouched, plan, "condition_channels is 0; expected 8", {})


def test_settings_that_do_not_fit(make_pipeline: Make, plan: PromptPlan) -> None:
    _refused(make_pipeline(num_frames=6), plan, "num_frames is 6", {})
    _refused(make_pipeline(sigmas="cosine"), plan, "sigmas is 'cosine'; expected one of linear", {})


def test_the_models_would_have_been_seen(untouched: Pipeline, plan: PromptPlan) -> None:
    """The fixture is worth nothing if good input does not reach a model."""
    with pytest.raises(AssertionError, match="a model ran"):
        untouched(GREY, plan=plan, masks=IDS)
