"""Components: seen once by moves and offload, shared by the views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from numpy.typing import NDArray
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from tests.pipelines.conftest import offload_by_layer, offloaded
from ttm import ImageToMotionPipeline, MotionToVideoPipeline, Pipeline, PromptPlan
from ttm.pipelines.host_image import embed_pictures

Make = Callable[..., Pipeline]
Seeded = Callable[[int], torch.Generator]
Pixels = NDArray[np.uint8]
BOTH_HOSTS = pytest.mark.parametrize("host", ["wan", "unet"])
ONE_PASS = {"guidance_scale": 1.0, "image_guidance_scale": 1.0}
"""With several, offload runs them one after the other, which is equal only up to rounding."""


def test_views_hold_the_same_objects(pipe: Pipeline) -> None:
    first, second = pipe.image_to_motion, pipe.motion_to_video
    assert type(first) is ImageToMotionPipeline and type(second) is MotionToVideoPipeline
    for name in ("vae", "tokenizer", "text_encoder"):
        assert getattr(first, name) is getattr(second, name) is getattr(pipe, name)
    assert first.transformer is pipe.motion_transformer and first.scheduler is pipe.motion_scheduler
    assert second.transformer is pipe.transformer and second.scheduler is pipe.scheduler


def test_a_component_put_in_later_reaches_the_view(pipe: Pipeline) -> None:
    pipe.transformer = pipe.motion_transformer
    assert pipe.motion_to_video.transformer is pipe.motion_transformer


@BOTH_HOSTS
def test_moves_see_every_module_once(make_pipeline: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = make_pipeline(with_segmenter=True)
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert len({id(module) for module in modules}) == len(modules) == 5
    moved: list[Any] = []
    for module in modules:
        monkeypatch.setattr(module, "to", lambda *arguments, module=module: moved.append(module))
    pipe.to("cpu")
    assert sorted(map(id, moved)) == sorted(map(id, modules))


@BOTH_HOSTS
def test_offload_brings_in_every_module_in_order(make_pipeline: Make) -> None:
    pipe = make_pipeline(with_segmenter=True)
    modules = {name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    assert set(moved_in(pipe)) == modules
    for view in (pipe.image_to_motion, pipe.motion_to_video):
        names = {name for name, part in view.components.items() if isinstance(part, torch.nn.Module)}
        assert set(moved_in(view)) == names


def moved_in(pipe: Any) -> list[str]:
    """What offload brings in, in order: all that it names but optional components that this pipeline lacks."""
    names = pipe.model_cpu_offload_seq.split("->")
    lacking = [name for name in names if getattr(pipe, name) is None]
    assert set(lacking) <= set(pipe._optional_components)
    return [name for name in names if name not in lacking]


@BOTH_HOSTS
def test_hooks_of_offload_run_for_every_model(make_pipeline: Make, image: Pixels, prompt: str, seeded: Seeded) -> None:
    """No accelerator here, so: accelerate's hook on each model must be called, also where forward is not."""
    from accelerate.hooks import ModelHook, add_hook_to_module

    class Counting(ModelHook):
        calls = 0

        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return args, kwargs

    pipe = make_pipeline(with_segmenter=True)
    bare = pipe(image, prompt, generator=seeded(0), output_type="np", **ONE_PASS).frames
    hooks = {name: Counting() for name in moved_in(pipe)}
    for name, hook in hooks.items():
        add_hook_to_module(getattr(pipe, name), hook)
    hooked = pipe(image, prompt, generator=seeded(0), output_type="np", **ONE_PASS).frames
    np.testing.assert_array_equal(hooked, bare)
    assert all(hook.calls > 0 for hook in hooks.values()), {name: hook.calls for name, hook in hooks.items()}


@BOTH_HOSTS
def test_with_offload_a_transformer_is_alone_at_work(
    make_pipeline: Make, image: Pixels, prompt: str, seeded: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = make_pipeline(with_segmenter=True)
    bare = pipe(image, prompt, generator=seeded(0), output_type="np", **ONE_PASS).frames
    seen = offloaded(pipe, monkeypatch)
    hooked = pipe(image, prompt, generator=seeded(0), output_type="np", **ONE_PASS).frames
    np.testing.assert_array_equal(hooked, bare)
    for name in ("motion_transformer", "transformer"):
        at_work = [there for who, there in seen if who == name]
        assert at_work and all(there == {name} for there in at_work)


@BOTH_HOSTS
def test_sequential_offload_changes_nothing(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    def run() -> Any:
        return pipe(image, plan=plan, masks=masks, generator=seeded(0), output_type="np")

    bare = run()
    offload_by_layer(pipe)
    for name in ("text_encoder", "motion_transformer", "transformer", "vae"):
        assert all(weight.is_meta for weight in getattr(pipe, name).parameters())
    layered = run()
    np.testing.assert_allclose(layered.frames, bare.frames, atol=1e-4)
    np.testing.assert_array_equal(layered.trajectory.ids, bare.trajectory.ids)


def test_pictures_reach_an_image_encoder_that_is_offloaded_part_by_part() -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = CLIPVisionModel(CLIPVisionConfig(image_size=8, patch_size=4, **sizes)).eval()
    processor = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        bare = embed_pictures(pictures, encoder, processor)
        cpu_offload(encoder, execution_device=torch.device("cpu"))
        assert encoder.device.type == "meta"
        assert torch.equal(embed_pictures(pictures, encoder, processor), bare)


@BOTH_HOSTS
def test_half_precision_runs_and_stays_near(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    def run() -> Any:
        return pipe(image, plan=plan, masks=masks, generator=seeded(0), output_type="np")

    single = run()
    pipe.to(torch.bfloat16)
    half = run()
    assert half.frames.dtype == np.float32 and np.isfinite(half.frames).all()
    assert np.abs(half.frames - single.frames).mean() < 0.05


def test_progress_bars_follow_the_setting(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe(image, plan=plan, masks=masks)
    assert capfd.readouterr().err == ""
    pipe.set_progress_bar_config()
    pipe(image, plan=plan, masks=masks)
    shown = capfd.readouterr().err
    assert "image to motion: 100%" in shown and "motion to video: 100%" in shown


def test_nothing_is_left_for_a_gradient(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    out = pipe(image, plan=plan, masks=masks, generator=seeded(0), output_type="latent")
    assert not out.frames.requires_grad
