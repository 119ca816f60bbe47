"""Training gives a host the image that sampling gives it: the first frame of the clip that the stage makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from stages.host import load_image_encoder, load_text, load_vae
from stages.host_image import EncodedImages, with_host_image
from stages.samples import build_sampler
from stages.settings import Settings
from stages.task import Batch
from stages.train import run
from tests.stages.public_bases import WAN, write_wan_i2v
from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.pipelines.autoencoders import decode_latents, encode_video
from ttm.pipelines.conditioning import Conditions
from ttm.pipelines.host_image import host_image
from ttm.pipelines.image_to_motion import ImageToMotionPipeline

Build = Callable[..., Settings]


class Clips:
    """Two samples of random latents."""

    num_scenes, nothing, nothing_mask = 2, torch.zeros(1, 3, 16), torch.ones(1, 3, dtype=torch.bool)

    def batch(self, indices: Any) -> Batch:
        data = torch.randn(2, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
        conditions = Conditions(torch.zeros(2, 8, 2, 4, 4), torch.zeros(2, 3, 16))
        return Batch(data, conditions, torch.zeros(2, 1, 2, 4, 4))


def model(**changes: Any) -> MaskedWanTransformer3DModel:
    sizes = {**WAN, "in_channels": 4, "out_channels": 4, "num_layers": 1, "condition_channels": 8, **changes}
    return MaskedWanTransformer3DModel(**sizes)


def test_a_host_without_an_image_gets_its_samples_as_they_are(settings: Build) -> None:
    clips = Clips()
    assert with_host_image(clips, settings(), model(), torch.device("cpu")) is clips


def test_the_known_first_frame_is_the_clips_own_and_is_dropped_with_what_is_visual(settings: Build) -> None:
    task = with_host_image(Clips(), settings(), model(known_first_frame=True), torch.device("cpu"))
    batch = task.batch(np.arange(2))
    image = batch.conditions.image_latents
    assert image is not None and image.shape == (2, 5, 2, 4, 4)
    assert torch.equal(image[:, 1:, :1], batch.data[:, :, :1]) and image[:, 0, 0].eq(1).all()
    assert image[:, :, 1:].eq(0).all()
    keeps = torch.tensor([True, False]), torch.tensor([True, True])
    kept = batch.conditions.keep(*keeps, task.nothing, task.nothing_mask)
    given = kept.inputs(torch.float32)["image_latents"]
    assert given is not None and torch.equal(given[0], image[0]) and given[1].eq(0).all()


def test_a_motion_whose_first_picture_is_not_known_is_refused(settings: Build, pipeline_folder: Path) -> None:
    host, device = model(known_first_frame=True), torch.device("cpu")
    flow = settings("motion=optical_flow", "stage=image_to_motion")
    with pytest.raises(ValueError, match="motion is optical_flow, whose first picture nobody knows before stage 1"):
        with_host_image(Clips(), flow, host, device)
    with_host_image(Clips(), settings("motion=optical_flow", "stage=motion_to_video"), host, device)
    parts = (load_vae(str(pipeline_folder)), *load_text(str(pipeline_folder)), host, FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match="motion is optical_flow, whose first picture nobody knows"):
        ImageToMotionPipeline(*parts, motion="optical_flow", max_sequence_length=12).check_sampling()
    ImageToMotionPipeline(*parts, max_sequence_length=12).check_sampling()


def test_a_missing_image_encoder_is_told_before_clips_are_encoded(
    settings: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"in_channels": 12, "image_dim": 8, "added_kv_proj_dim": 24}
    made = settings(*[f"host.transformer.{name}={value}" for name, value in sizes.items()])
    monkeypatch.setattr("stages.train.build_task", None)
    with pytest.raises(ValueError, match="has no folder 'image_encoder'"):
        run(made)


def test_an_encoded_image_is_what_sampling_gives_and_is_made_once(
    settings: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_wan_i2v(tmp_path / "base")
    host = model(in_channels=12, image_dim=8, added_kv_proj_dim=24)
    run = settings(f"host.pipeline={base}", f"data.cache_dir={tmp_path}")
    give, vae = EncodedImages(run, host, torch.device("cpu")), load_vae(str(base))
    frames = torch.rand(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        first = encode_video(vae, frames)
        found = give(first, 2)
        expected = host_image(vae, host, decode_latents(vae, first), 2, *give.images)
    assert found["image_latents"].shape == (2, 8, 2, 4, 4) and found["image_embeds"].shape == (2, 5, 8)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=5e-3, rtol=5e-3)  # kept in 16 bits
    assert len(list(give.folder.glob("*.safetensors"))) == 2
    monkeypatch.setattr("stages.host_image.host_image", None)  # from here on nothing can be encoded
    again = give(first, 2)
    assert all(torch.equal(again[name], value) for name, value in found.items())


def test_videos_are_drawn_again_and_again_with_one_image_encoder(
    settings: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_wan_i2v(tmp_path / "base")
    host = model(in_channels=12, image_dim=8, added_kv_proj_dim=24)
    run = settings(
        f"host.pipeline={base}",
        f"data.cache_dir={tmp_path}",
        "sample_scenes=1",
        "sample_steps=1",
        "host.max_sequence_length=512",
    )
    opened: list[str] = []

    def counted(*arguments: Any) -> Any:
        opened.append(arguments[0])
        return load_image_encoder(*arguments)

    monkeypatch.setattr("stages.host.load_image_encoder", counted)
    draw = build_sampler(run, torch.device("cpu"))
    (first,), (again,) = (draw(host, 0, 1).values() for _ in range(2))
    assert opened == [str(base)]
    assert all(np.array_equal(a, b) for a, b in zip(first.frames[0], again.frames[0], strict=True))
