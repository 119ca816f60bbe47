"""The few-shot pipeline on a Stable-Diffusion-shaped folder of random weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from tests.pipelines.conftest import offload_by_layer, offloaded
from ttm.models.lora import add_lora
from ttm.motion.carried_frame import carry_first_frame
from ttm.motion.control_picture import control_picture
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.autoencoders import decode_latents, encode_video
from ttm.pipelines.few_shot import FewShotPipeline
from ttm.pipelines.few_shot_base import Base, host_sizes
from ttm.pipelines.few_shot_folder import FewShotRecord, write_few_shot
from ttm.pipelines.few_shot_request import extension_windows, video_length
from ttm.pipelines.inputs import to_model, to_uint8

SIZE, WINDOW, STEPS = 16, 4, 2
SETTINGS = {"num_frames": WINDOW, "height": SIZE, "width": SIZE, "num_inference_steps": STEPS, "max_sequence_length": 8}


@pytest.fixture(scope="module")
def base(save_stable_diffusion: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stable_diffusion(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pipe(base: Path) -> FewShotPipeline:
    made = FewShotPipeline.from_base(str(base), **SETTINGS)
    made.set_progress_bar_config(disable=True)
    for name, value in made.unet.named_parameters():  # zero at first, which would hide the masks
        if "mask_projection" in name:
            torch.nn.init.normal_(value)
    for value in made.controlnet.parameters():  # its last layers are zero at first
        torch.nn.init.normal_(value, std=0.2)
    return made


@pytest.fixture
def masks() -> Callable[[int], MaskTrajectory]:
    def make(num_frames: int) -> MaskTrajectory:
        ids = np.zeros((num_frames, SIZE, SIZE), np.uint8)
        for t in range(num_frames):
            ids[t, 4:10, t % 8 : t % 8 + 6] = 1
        return MaskTrajectory(ids)

    return make


@pytest.fixture
def run(pipe: FewShotPipeline, image: np.ndarray) -> Callable[..., torch.Tensor]:
    """run(trajectory, ...) -> latents [Z, T, h, w] from the fixture's image (conftest), cut to size."""

    def call(trajectory: MaskTrajectory, seed: int = 0, **arguments: Any) -> torch.Tensor:
        given = {"image": image[:SIZE, :SIZE], "output_type": "latent", **arguments}
        made: torch.Tensor = pipe("a dog runs", trajectory, generator=torch.Generator().manual_seed(seed), **given)
        return made.frames[0]

    return call


def test_the_first_frame_stays_what_it_was_given(pipe: FewShotPipeline, run: Any, masks: Any, image: Any) -> None:
    seen = []
    handle = pipe.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    latents = run(masks(WINDOW))
    handle.remove()
    assert latents.shape == (4, WINDOW, SIZE // 2, SIZE // 2)
    frame = torch.from_numpy(image[:SIZE, :SIZE].copy()).movedim(-1, 0)[None] / 127.5 - 1
    expected = pipe.vae.encode(frame).latent_dist.mode() * 1.5
    torch.testing.assert_close(latents[:, 0], expected[0])
    assert len(seen) == STEPS
    for noisy in seen:  # two guidance passes each
        assert noisy.shape[0] == 2 and torch.equal(noisy[0, :, 0], latents[:, 0])


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_other_schedulers_leave_the_first_frame_clean(pipe: FewShotPipeline, run: Any, masks: Any, kind: Any) -> None:
    own, seen = pipe.scheduler, []
    handle = pipe.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    pipe.scheduler = kind.from_config(own.config)
    try:
        first = run(masks(WINDOW))[:, :1]
    finally:
        pipe.scheduler = own
        handle.remove()
    assert len(seen) >= STEPS and all(torch.equal(noisy[:1, :, :1], first[None]) for noisy in seen)


def test_a_scheduler_that_scales_latents_is_refused(pipe: FewShotPipeline, run: Any, masks: Any) -> None:
    own = pipe.scheduler
    pipe.scheduler = EulerDiscreteScheduler.from_config(own.config)
    try:
        with pytest.raises(ValueError, match="EulerDiscreteScheduler scales latents.*expected one .*: DDIMScheduler"):
            run(masks(WINDOW))
    finally:
        pipe.scheduler = own


def test_offload_keeps_controlnet_until_the_first_frame_is_drawn(
    base: Path, masks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = FewShotPipeline.from_base(str(base), **SETTINGS)
    pipe.set_progress_bar_config(disable=True)
    seen = offloaded(pipe, monkeypatch)
    assert pipe.image_unet._hf_hook.prev_module_hook.model is pipe.text_encoder, "its forward sends no ControlNet away"
    pipe("a dog runs", masks(7), output_type="latent", carried_first_frame=True)  # two windows, the autoencoder between
    assert [there for who, there in seen if who == "unet"] == [{"unet"}] * (4 * STEPS)  # two guidance passes in turn
    assert len([who for who, there in seen if who == "controlnet" and who in there]) == STEPS


def test_sequential_offload_changes_nothing(base: Path, masks: Any) -> None:
    pipe = FewShotPipeline.from_base(str(base), **SETTINGS)
    pipe.set_progress_bar_config(disable=True)

    def run() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        made: torch.Tensor = pipe("a dog runs", masks(WINDOW), generator=generator, output_type="pt").frames
        return made

    bare = run()
    offload_by_layer(pipe)
    assert pipe.unet.device.type == pipe.text_encoder.device.type == "meta"
    torch.testing.assert_close(run(), bare, atol=1e-4, rtol=1e-4)


def test_masks_prompt_and_sharing_matter(run: Any, masks: Any, pipe: FewShotPipeline) -> None:
    plain = run(masks(WINDOW))
    moved = MaskTrajectory(np.roll(masks(WINDOW).ids, 4, axis=1))
    assert torch.equal(plain, run(masks(WINDOW)))
    for other in (run(moved), run(masks(WINDOW), sharing_ratio=0.0), run(masks(WINDOW), renormalise_sharing=True)):
        assert torch.equal(other[:, 0], plain[:, 0]) and not torch.allclose(other[:, 1:], plain[:, 1:])


def test_the_shared_frame_may_be_carried_along_the_masks(pipe: FewShotPipeline, run: Any, masks: Any) -> None:
    seen = []
    handle = pipe.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    latents = run(masks(7), sharing_ratio=1.0, carried_first_frame=True)  # nothing but what is shared
    handle.remove()
    for start, noisy in ((0, seen[0]), (3, seen[STEPS])):  # the first step of each window
        ids = masks(7).ids[start : start + WINDOW]
        with torch.no_grad():
            first = to_uint8(decode_latents(pipe.vae, latents[None, :, start : start + 1]))[0]
            carried = encode_video(pipe.vae, to_model(carry_first_frame(first, ids), torch.device("cpu")))
        torch.testing.assert_close(noisy[:1, :, 1:], carried[:, :, 1:])
    own = run(masks(WINDOW), carried_first_frame=True)
    assert not torch.allclose(own[:, 1:], run(masks(WINDOW))[:, 1:])
    nothing = run(masks(WINDOW), carried_first_frame=True, sharing_ratio=0.0)
    assert torch.equal(nothing, run(masks(WINDOW), sharing_ratio=0.0))
    pipe.register_to_config(carried_first_frame=True)
    try:
        assert torch.equal(run(masks(WINDOW)), own)
        assert not torch.equal(run(masks(WINDOW), carried_first_frame=False), own)
    finally:
        pipe.register_to_config(carried_first_frame=False)


def test_a_long_video_begins_as_the_short_one_and_goes_on_from_its_last_frame(run: Any, masks: Any) -> None:
    long = run(masks(9))
    assert long.shape[1] == 9
    assert torch.equal(long[:, :WINDOW], run(masks(9), num_frames=WINDOW))
    assert torch.equal(run(masks(9), num_clips=2), run(masks(7)))
    assert [(part.start, part.stop) for part in extension_windows(9, 4)] == [(0, 4), (3, 7), (6, 9)]
    assert [(part.start, part.stop) for part in extension_windows(4, 4)] == [(0, 4)]


def test_colour_matching_is_off_by_default_and_does_what_it_says(run: Any, masks: Any) -> None:
    matched = run(masks(7), match_latents=True)
    for t in range(7):
        torch.testing.assert_close(matched[:, t].mean((1, 2)), matched[:, 0].mean((1, 2)))
        torch.testing.assert_close(matched[:, t].std((1, 2)), matched[:, 0].std((1, 2)), rtol=1e-3, atol=1e-4)
    frames = np.asarray(run(masks(WINDOW), output_type="np", match_histograms=True))
    plain = np.asarray(run(masks(WINDOW), output_type="np"))
    assert frames.shape == plain.shape == (WINDOW, SIZE, SIZE, 3)
    first, last = (np.sort(frames[t, ..., 0].ravel()) for t in (0, -1))
    assert np.abs(first - last).mean() < np.abs(np.sort(plain[-1, ..., 0].ravel()) - first).mean()


def test_the_first_frame_can_be_drawn_with_and_without_controlnet(pipe: FewShotPipeline, masks: Any) -> None:
    def draw(trajectory: MaskTrajectory, **arguments: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return pipe("a dog runs", trajectory, generator=generator, output_type="latent", **arguments).frames[0]

    here, there = masks(WINDOW), MaskTrajectory(np.roll(masks(WINDOW).ids, 5, axis=1))
    assert not torch.allclose(draw(here)[:, 0], draw(there)[:, 0])
    assert not torch.allclose(draw(here)[:, 0], draw(here, use_controlnet=False)[:, 0])
    for name in ("controlnet_conditioning_scale", "controlnet_guidance_scale"):
        assert not torch.allclose(draw(here)[:, 0], draw(here, **{name: 2})[:, 0])
    assert torch.equal(draw(here, use_controlnet=False)[:, 0], draw(there, use_controlnet=False)[:, 0])
    ids = here.ids[0]
    assert np.array_equal(np.asarray(control_picture(ids, "silhouette"))[..., 0] > 0, ids > 0)
    assert tuple(np.asarray(control_picture(ids))[5, 3]) == (255, 0, 0)


def test_editing_follows_the_tracked_objects_of_a_clip(pipe: FewShotPipeline, image: Any) -> None:
    class Red:
        def segment(self, frame: np.ndarray, phrases: list[str]) -> np.ndarray:
            return (frame[..., 0] > 150).astype(np.uint8)

        def track(self, frames: np.ndarray, first_ids: np.ndarray) -> np.ndarray:
            return (frames[..., 0] > 150).astype(np.uint8)

    clip = np.stack([np.roll(image, 2 * t, axis=1) for t in range(WINDOW)])
    out = pipe.edit(clip, "a dog runs", Red(), ["red square"], image=image, output_type="np")
    assert out.trajectory.ids.shape == (WINDOW, SIZE, SIZE)
    # One shape of mask, 2 pixels of 32 further in each frame.
    assert np.array_equal(out.trajectory.ids[1][:, 1:], out.trajectory.ids[0][:, :-1])
    wide = np.pad(clip, ((0, 0), (0, 0), (8, 8), (0, 0)))  # its middle part is kept
    wider = pipe.edit(wide, "a dog runs", Red(), ["red square"], output_type="np")
    assert np.array_equal(wider.trajectory.ids, out.trajectory.ids)


def test_callbacks_see_each_step(pipe: FewShotPipeline, masks: Any) -> None:
    stages: list[str] = []

    def note(running: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        stages.append(running.stage)
        assert set(tensors) == ({"prompt_embeds"} if running.stage == "few_shot" else set())
        return {}

    pipe("a dog runs", masks(7), callback_on_step_end=note, callback_on_step_end_tensor_inputs=["prompt_embeds"])
    assert stages == ["first_frame"] * STEPS + ["few_shot"] * 2 * STEPS


@pytest.mark.parametrize(("stop_in", "frames"), [("first_frame", 1), ("few_shot", WINDOW)])
def test_a_callback_can_stop_the_call(pipe: FewShotPipeline, masks: Any, stop_in: str, frames: int) -> None:
    seen: list[str] = []

    def stop(running: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(running.stage)
        running._interrupt = running.stage == stop_in
        return {}

    out = pipe("a dog runs", masks(7), callback_on_step_end=stop, callback_on_step_end_tensor_inputs=[])
    assert seen.count(stop_in) == 1 and len(seen) < 2 * STEPS, "nothing comes after the step that was stopped at"
    assert len(out.frames[0]) == out.trajectory.num_frames == frames
    whole = pipe("a dog runs", masks(7), output_type="latent")
    assert whole.frames.shape[2] == 7, "the next call is a whole one"


def test_a_first_frame_that_fails_leaves_the_pipeline_as_it_was(pipe: FewShotPipeline, masks: Any) -> None:
    def fail(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe("a dog runs", masks(4), callback_on_step_end=fail)
    assert pipe.stage == "few_shot"


def test_saved_whole_it_makes_the_same_video_in_a_fresh_process(
    pipe: FewShotPipeline, masks: Any, tmp_path: Path
) -> None:
    pipe.save_pretrained(tmp_path / "pipe")
    masks(WINDOW).save(tmp_path / "masks.npz")
    code = f"""
import torch
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.few_shot import FewShotPipeline
pipe = FewShotPipeline.from_pretrained({str(tmp_path / "pipe")!r})
pipe.set_progress_bar_config(disable=True)
moves = MaskTrajectory.load({str(tmp_path / "masks.npz")!r})
frames = pipe("a dog runs", moves, generator=torch.Generator().manual_seed(0), output_type="latent").frames
torch.save(frames, {str(tmp_path / "frames.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=300)
    made = pipe("a dog runs", masks(WINDOW), generator=torch.Generator().manual_seed(0), output_type="latent").frames
    torch.testing.assert_close(torch.load(tmp_path / "frames.pt", weights_only=True), made)


@pytest.mark.parametrize("lora", [None, 2])
def test_what_was_trained_opens_on_its_base(base: Path, tmp_path: Path, lora: Any, masks: Any, image: Any) -> None:
    trained = FewShotPipeline.from_base(str(base), **SETTINGS)
    trained.set_progress_bar_config(disable=True)
    sizes = host_sizes(trained.unet)
    if lora:
        add_lora(trained.unet, lora)
    names = [n for n, _ in trained.unet.named_parameters() if "mask_projection" in n or "lora" in n or ".attn1." in n]
    weights = {n: p for n, p in trained.unet.named_parameters() if n in names and ("lora" in n or "base" not in n)}
    for value in weights.values():
        torch.nn.init.normal_(value, std=0.3)
    switches = {"first_frame_attention": True, "mask_cross_attention": True}
    write_few_shot(tmp_path, weights, FewShotRecord(Base(str(base)), switches, sizes, lora, settings=SETTINGS))

    opened = FewShotPipeline.from_pretrained(tmp_path)
    opened.set_progress_bar_config(disable=True)
    half = FewShotPipeline.from_pretrained(tmp_path, torch_dtype=torch.float16, guidance_scale=2.0)
    assert half.unet.dtype == torch.float16 and half.config.guidance_scale == 2.0
    with pytest.raises(
        ValueError, match="no setting 'guidance'; expected some of base, carried_first_frame, control_picture"
    ):
        FewShotPipeline.from_pretrained(tmp_path, guidance=2.0)
    assert opened.config.num_frames == WINDOW and not any("lora" in n for n, _ in opened.unet.named_parameters())
    made, expected = (
        one("a dog runs", masks(WINDOW), image, generator=torch.Generator().manual_seed(0), output_type="latent").frames
        for one in (opened, trained)
    )
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-4)
    untrained = FewShotPipeline.from_base(str(base), **SETTINGS)
    plain = untrained("a dog runs", masks(4), image, generator=torch.Generator().manual_seed(0), output_type="latent")
    assert not torch.allclose(plain.frames, made)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_frames": 9}, "has 6 frames, the video asked for 9"),
        ({"num_clips": 2}, "has 6 frames, the video asked for 7"),
        ({"num_clips": 1, "num_frames": 4}, "expected one of the two"),
        ({"num_frames": 1}, "at least 2"),
        ({"prompt": " "}, "prompt"),
        ({"sharing_ratio": 1.2}, "sharing_ratio"),
        ({"controlnet_guidance_scale": float("nan")}, "controlnet_guidance_scale is nan"),
        ({"use_controlnet": True}, "both make frame 1"),
        ({"output_type": "gif"}, "output_type"),
        ({"height": 17}, "multiple of 2"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"trajectory": MaskTrajectory(np.zeros((4, SIZE, SIZE), int))}, "shows no object"),
        ({"trajectory": np.zeros((4, SIZE, SIZE), int)}, "expected a ttm.MaskTrajectory"),
    ],
)
def test_what_a_call_refuses(pipe: FewShotPipeline, masks: Any, image: Any, arguments: dict, words: str) -> None:
    called = []
    handle = pipe.unet.register_forward_pre_hook(lambda module, args: called.append(1))
    given = {"prompt": "a dog runs", "trajectory": masks(6), "image": image, **arguments}
    with pytest.raises(ValueError, match=words):
        pipe(**given)
    handle.remove()
    assert not called


def test_a_first_frame_needs_something_to_draw_it(base: Path, masks: Any) -> None:
    pipe = FewShotPipeline.from_base(str(base), **SETTINGS)
    pipe.controlnet = None
    with pytest.raises(ValueError, match="no ControlNet"):
        pipe("a dog runs", masks(4), use_controlnet=True)
    pipe.image_unet = None
    with pytest.raises(ValueError, match="no image_unet"):
        pipe("a dog runs", masks(4))


@pytest.mark.parametrize("window", [1, 9])
def test_a_window_that_the_motion_modules_do_not_know(base: Path, masks: Any, image: Any, window: int) -> None:
    pipe = FewShotPipeline.from_base(str(base), **{**SETTINGS, "num_frames": window})
    with pytest.raises(ValueError, match=f"num_frames is {window}; expected a window of 2 to 8"):
        pipe("a dog runs", masks(12), image)


def test_the_length_of_a_video() -> None:
    assert (
        video_length(None, None, 4, 11) == 11
        and video_length(None, 3, 4, 11) == 10
        and video_length(5, None, 4, 11) == 5
    )
