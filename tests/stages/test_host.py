"""What a stage is trained on: components of either kind, and weights from wherever they come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, MotionAdapter, UNet2DConditionModel
from huggingface_hub import constants
from transformers import CLIPTextModel, UMT5EncoderModel

from stages.host import build_transformer, encoder_digest, load_text, load_vae
from stages.settings import Settings
from ttm.models.unet_motion import MaskedUNetMotionModel

Build = Callable[..., Settings]


@pytest.fixture
def image_model(unet_folder: Path, tmp_path: Path) -> Path:
    """A folder of Stable Diffusion's shape with a motion adapter beside its U-Net."""
    torch.manual_seed(1)
    UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=2,
    ).save_pretrained(tmp_path / "unet")
    MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=8,
    ).save_pretrained(tmp_path / "motion_adapter")
    return tmp_path


def test_components_come_in_the_class_that_their_folder_names(pipeline_folder: Path, unet_folder: Path) -> None:
    for folder, vae, text in (
        (pipeline_folder, AutoencoderKLWan, UMT5EncoderModel),
        (unet_folder, AutoencoderKL, CLIPTextModel),
    ):
        assert type(load_vae(str(folder))) is vae
        assert type(load_text(str(folder))[1]) is text


def test_an_autoencoder_of_another_class_is_named(unet_folder: Path, tmp_path: Path) -> None:
    config = json.loads((unet_folder / "vae" / "config.json").read_text()) | {"_class_name": "AutoencoderTiny"}
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is a AutoencoderTiny; expected one of AutoencoderKLWan, "):
        load_vae(str(tmp_path))


def test_the_digest_of_an_image_autoencoder_is_its_encoders(unet_folder: Path) -> None:
    """A cache outlives further training of the decoder, and no other change."""
    vae = load_vae(str(unet_folder))
    before = encoder_digest(vae)
    vae.decoder.conv_in.weight.data += 1
    assert encoder_digest(vae) == before
    vae.register_to_config(scaling_factor=0.5)
    changed = encoder_digest(vae)
    vae.encoder.conv_in.weight.data += 1
    assert len({before, changed, encoder_digest(vae)}) == 3


@pytest.mark.parametrize("host", ["unet"])
@pytest.mark.parametrize("stage", ["image_to_motion", "motion_to_video"])
def test_an_image_model_and_a_motion_adapter_become_a_host(settings: Build, image_model: Path, stage: str) -> None:
    places = [f"host.init_from={image_model}", f"host.motion_adapter={image_model}"]
    model = build_transformer(settings(f"stage={stage}", *places))
    assert isinstance(model, MaskedUNetMotionModel)
    assert model.config.condition_channels == 8
    assert model.config.num_masked_blocks == (0 if stage == "image_to_motion" else 1)
    unet = UNet2DConditionModel.from_pretrained(image_model, subfolder="unet")
    adapter = MotionAdapter.from_pretrained(image_model / "motion_adapter")
    expected = MaskedUNetMotionModel.from_unet2d(unet, adapter, condition_channels=8).state_dict()
    found = model.state_dict()
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []


@pytest.mark.parametrize("host", ["unet"])
def test_without_a_motion_adapter_the_pipelines_own_weights_are_taken(settings: Build, tmp_path: Path) -> None:
    own = build_transformer(settings("stage=motion_to_video", "seed=5"))
    own.save_pretrained(tmp_path / "transformer")
    model = build_transformer(settings("stage=motion_to_video", f"host.init_from={tmp_path}"))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in own.state_dict().items())


def test_masked_blocks_that_were_trained_are_not_left_out_unsaid(settings: Build, tmp_path: Path) -> None:
    build_transformer(settings("stage=motion_to_video", "host.num_masked_blocks=2")).save_pretrained(tmp_path)
    fewer = [f"host.init_from={tmp_path}", "host.num_masked_blocks=1"]
    with pytest.raises(ValueError, match="num_masked_blocks is 1, .* have 2 masked blocks; expected at least 2"):
        build_transformer(settings("stage=motion_to_video", *fewer))
    for stage, blocks in (("motion_to_video", 0), ("image_to_motion", 1)):
        without = settings(f"stage={stage}", fewer[0], f"host.num_masked_blocks={blocks}")
        assert build_transformer(without).config.num_masked_blocks == 0


def test_the_stages_own_host_is_taken_of_a_hub_id(
    settings: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for repository, parts in (("ours", ("motion_transformer", "transformer")), ("public", ("transformer",))):
        home = tmp_path / f"models--someone--{repository}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text("a" * 40)
        for seed, part in enumerate(parts):
            own = build_transformer(settings("stage=image_to_motion", f"seed={seed}"))
            own.save_pretrained(home / "snapshots" / ("a" * 40) / part)
    for stage, repository, seed in (
        ("image_to_motion", "ours", 0), ("motion_to_video", "ours", 1), ("image_to_motion", "public", 0)
    ):  # fmt: skip
        found = build_transformer(settings(f"stage={stage}", f"host.init_from=someone/{repository}"))
        expected = build_transformer(settings("stage=image_to_motion", f"seed={seed}"))
        assert torch.equal(found.patch_embedding.weight, expected.patch_embedding.weight)
    with pytest.raises(OSError, match="someone/nowhere"):
        build_transformer(settings("host.init_from=someone/nowhere"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # here that is a Hub which can't be reached
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="someone/public"):
        build_transformer(settings("stage=image_to_motion", "host.init_from=someone/public"))


@pytest.mark.parametrize("host", ["unet"])
def test_motion_adapters_that_lead_nowhere(settings: Build, image_model: Path, tmp_path: Path) -> None:
    weights = f"host.init_from={image_model}"
    with pytest.raises(ValueError, match="host.motion_adapter=/nowhere/at/all does not exist"):
        build_transformer(settings(weights, "host.motion_adapter=/nowhere/at/all"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no config.json; expected weights, or a folder 'motion_adapter'"):
        build_transformer(settings(weights, f"host.motion_adapter={tmp_path / 'empty'}"))
    with pytest.raises(ValueError, match="expected host.model=unet_motion and a U-Net as host.init_from"):
        settings(f"host.motion_adapter={image_model}")
    with pytest.raises(ValueError, match="host.model is 'unet'; expected one of wan, unet_motion"):
        settings("host.model=unet")


@pytest.mark.parametrize(
    ("host", "typo", "meant"),
    [("wan", "num_layer", "num_layers"), ("unet", "block_out_channel", "block_out_channels"),
     ("wan", "region", "num_layers")],
)  # fmt: skip
def test_sizes_that_the_host_does_not_have(settings: Build, typo: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"host.transformer.{typo} is set, which is no size.*expected .*{meant}"):
        build_transformer(settings(f"host.transformer.{typo}=4"))


def test_weights_say_whether_they_see_the_first_frame_carried(settings: Build, tmp_path: Path) -> None:
    second = ("stage=motion_to_video", f"host.init_from={tmp_path}")
    build_transformer(settings("stage=motion_to_video", "host.carried_first_frame=true")).save_pretrained(tmp_path)
    assert build_transformer(settings(*second)).config.carried_first_frame
    assert not build_transformer(settings(*second, "host.carried_first_frame=false")).config.carried_first_frame
    assert not build_transformer(settings("stage=motion_to_video")).config.carried_first_frame
    first = ("host.num_masked_blocks=0", "stage=image_to_motion", f"host.init_from={tmp_path}")
    assert not build_transformer(settings(*first)).config.carried_first_frame, "stage 1 has no masks to carry it along"
