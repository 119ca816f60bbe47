"""The recipe of ttm-tiny-unet at a rehearsal size: every step runs, resumes, and gives folders that diffusers opens."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention import BasicTransformerBlock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from stages.settings_loading import load_settings
from tools.ttm_tiny_unet import controlnet, encoded_scenes, measure, noisy_scenes, train_controlnet, train_unet
from tools.ttm_tiny_unet.__main__ import steps
from tools.ttm_tiny_unet.clip_attention import MASK_SCALE, FirstFrameKeys, MaskedQueries
from tools.ttm_tiny_unet.train_autoencoder import (
    LATENT_CHANNELS,
    new_autoencoder,
    round_trip,
    standardise_latents,
    to_pictures,
)
from tools.ttm_tiny_unet.train_text_encoder import Tagger, batch, caption, train_tokenizer
from ttm.data.synthetic import SyntheticWorld
from ttm.models.unet_motion import MaskedUNetMotionModel
from ttm.motion.mask_trajectory import PALETTE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after every step but the stages, each with next to no training, and two encoded scenes."""
    made = tmp_path_factory.mktemp("ttm-tiny-unet")
    torch.manual_seed(0)
    new_autoencoder().to(torch.float16).save_pretrained(made / "vae")
    tagger = Tagger(train_tokenizer(made / "tokenizer", vocabulary=600, plans=100))
    tagger.encoder.to(torch.float16).save_pretrained(made / "text_encoder")
    vae = AutoencoderKL.from_pretrained(made / "vae", torch_dtype=torch.float32)
    encoded_scenes.encode(vae, SyntheticWorld("train"), made / "scenes", 2)
    for program, run in ((train_unet, "unet"), (train_controlnet, "controlnet")):
        _start(program, made, run)
    return made


def _start(program: object, folder: Path, run: str) -> None:
    arguments = ["--minutes", "1e-4", "--scenes", folder / "scenes", "--run", folder / "runs" / run, "--output", folder]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["program", *map(str, arguments)])
        program.main()  # type: ignore[attr-defined]


@pytest.mark.parametrize("go_on", [False, True])
def test_every_step_is_a_command_that_its_program_accepts(
    go_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = steps(0.5, go_on)
    assert ("text_encoder" in commands) != go_on, "what was trained on the text embeddings lives on them"
    for module, *arguments in commands.values():
        if module.startswith("stages."):
            assert load_settings(arguments).host.name == "ttm_tiny_unet"
            continue
        monkeypatch.setattr(sys, "argv", [module, *arguments, "--help"])
        with pytest.raises(SystemExit) as stopped:
            importlib.import_module(module).main()
        assert stopped.value.code == 0
        known = capsys.readouterr().out
        assert all(flag in known for flag in arguments if flag.startswith("--")), f"{module} {arguments}"


@torch.no_grad()
def test_standardised_latents_have_unit_variance_and_change_no_picture() -> None:
    torch.manual_seed(0)
    vae = new_autoencoder().eval()
    scene = SyntheticWorld("val")[0]
    pictures = to_pictures(scene.frames[::4])
    before = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
    standardise_latents(vae, scenes=1)
    latents = vae.encode(pictures).latent_dist.mode()
    torch.testing.assert_close(vae.decode(latents).sample, before, rtol=1e-3, atol=1e-3)
    assert latents.shape == (5, LATENT_CHANNELS, 8, 8)
    assert 0.2 < latents.std() < 5
    assert round_trip(vae, scene.frames[:1]).shape == (1, 128, 128, 3)


def test_captions() -> None:
    assert caption(["cat"]) == "a cat"
    assert caption(["red ball", "orange star", "astronaut"]) == "a red ball, an orange star and an astronaut"


def test_tokenizer_knows_every_letter_and_pads_like_clip(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert {path.name for path in (folder / "tokenizer").iterdir()} >= {"vocab.json", "merges.txt"}
    text = "The Zyqwx-Ünïcode truck drives left!"
    tokens = tokenizer(text, padding="max_length", truncation=True)["input_ids"]
    assert len(tokens) == tokenizer.model_max_length == 40
    assert tokens[0] == tokenizer.bos_token_id and tokens[-1] == tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in tokens[: tokens.index(tokenizer.eos_token_id)]
    decoded = tokenizer.decode(tokens, skip_special_tokens=True)
    assert "".join(decoded.split()) == "".join(text.lower().split())


def test_tags_stand_only_where_a_causal_reader_can_know_them(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokens, labels, ends, summaries = batch(np.random.default_rng(0), tokenizer, plans=6)
    first_end = (tokens == tokenizer.eos_token_id).int().argmax(1)
    assert (ends[:, 0] == first_end).all() and (ends[:, 1] >= first_end).all() and (ends < 40).all()
    assert (labels[:, 0] == -100).all(), "the start token knows nothing"
    motion, shape = labels[..., 1] != -100, labels[..., 4] != -100
    assert motion.any() and (motion <= shape).all(), "the motion is told after the object's name"
    assert (labels[3::4, :, 1] == -100).all() and (summaries[3::4, :, 1] == -100).all(), "a caption tells no motion"
    assert (summaries[..., 4].amax(1) >= 0).all()


def test_folders_open_with_diffusers_own_classes(folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    adapter = MotionAdapter.from_pretrained(folder / "motion_adapter")
    controlnet = ControlNetModel.from_pretrained(folder / "controlnet")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    latents = torch.randn(1, LATENT_CHANNELS, 8, 8)
    states = text(torch.zeros(1, 40, dtype=torch.long)).last_hidden_state
    with torch.no_grad():
        down, middle = controlnet(latents, 10, states, torch.rand(1, 3, 128, 128), return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        assert unet(latents, 10, states, **residuals).sample.shape == latents.shape
        video = UNetMotionModel.from_unet2d(unet, adapter)
        assert video(latents[:, :, None].expand(-1, -1, 3, -1, -1), 10, states.repeat(3, 1, 1)).sample.ndim == 5


def test_an_error_of_the_noise_counts_as_the_error_of_v(folder: Path) -> None:
    source = noisy_scenes.noisy_scenes(folder / "scenes", folder, seed=0)
    _, _, latents, weights = source.pictures(3)
    noisy, noise, timesteps = source.noised(latents)
    answer = noise + 0.1
    kept = source.noise.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    told = (noisy - (1 - kept).sqrt() * answer) / kept.sqrt()  # the latents, if the answer were right
    velocity = source.noise.get_velocity(latents, noise, timesteps)
    expected = noisy_scenes.weighted_error(source.noise.get_velocity(told, answer, timesteps), velocity, weights)
    torch.testing.assert_close(source.loss(answer, noise, weights, timesteps), expected, rtol=1e-3, atol=0)


def test_a_clean_first_frame_is_not_judged() -> None:
    latents, noise, weights = torch.zeros(2, 2, 3, 1, 1), torch.ones(2, 2, 3, 1, 1), torch.ones(2, 1, 3, 1, 1)
    noisy, judged = noisy_scenes.with_clean_first_frame(noise, latents, weights)
    assert (noisy[:, :, 0] == 0).all() and (judged[:, :, 0] == 0).all()
    assert torch.equal(noisy[:, :, 1:], noise[:, :, 1:]) and torch.equal(judged[:, :, 1:], weights[:, :, 1:])
    assert (noise == 1).all() and (weights == 1).all()


def test_what_is_trained_is_what_the_few_shot_variant_opens() -> None:
    torch.manual_seed(0)
    unet, adapter = UNet2DConditionModel(**train_unet.UNET_CONFIG), train_unet.new_adapter()
    for parameter in adapter.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    opened = MaskedUNetMotionModel.from_unet2d(unet, adapter)
    switches = {"first_frame_attention": True, "mask_cross_attention": True}
    opened_few_shot = MaskedUNetMotionModel.from_unet2d(unet, adapter, **switches)
    video, keys, masks = train_unet.with_motion(unet, adapter), FirstFrameKeys(unet), MaskedQueries(unet)
    names = [name for name, module in unet.named_modules() if isinstance(module, BasicTransformerBlock)]
    for name, projection in zip(names, masks.projections, strict=True):
        projection.weight.data.normal_()
        theirs = opened_few_shot.get_submodule(name).mask_projection
        theirs.weight.data = MASK_SCALE * projection.weight.data
    latents, text, coverage = torch.randn(2, LATENT_CHANNELS, 3, 8, 8), torch.randn(2, 40, 128), torch.rand(2, 3, 8, 8)

    def seen(first_frame: bool, masked: bool) -> Tensor:
        keys.look_at_first_frame(3 if first_frame else None)
        masks.show(coverage if masked else None)
        made: Tensor = video(latents, 7, text.repeat_interleave(3, 0)).sample
        return made

    with torch.no_grad():
        plain = opened(latents, 7, text).sample
        torch.testing.assert_close(seen(False, False), plain)
        from_first = opened_few_shot(latents, 7, text).sample
        with_masks = opened_few_shot(latents, 7, text, object_coverage=coverage[:, None]).sample
        torch.testing.assert_close(seen(True, False), from_first)
        torch.testing.assert_close(seen(True, True), with_masks)
        torch.testing.assert_close(seen(False, False), plain, msg="nothing of it stays")
    assert not torch.allclose(from_first, plain, atol=1e-3) and not torch.allclose(with_masks, from_first, atol=1e-3)


def test_a_second_start_finds_its_budget_spent_and_its_weights_again(folder: Path) -> None:
    before = UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    _start(train_unet, folder, "unet")
    after = UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_motion_shares_the_parameters_of_both_parts() -> None:
    torch.manual_seed(0)
    unet, adapter = UNet2DConditionModel(**train_unet.UNET_CONFIG), train_unet.new_adapter()
    video = train_unet.with_motion(unet, adapter)
    owned = {id(parameter) for module in (unet, adapter) for parameter in module.parameters()}
    assert {id(parameter) for parameter in video.parameters()} == owned
    latents, text = torch.randn(2, LATENT_CHANNELS, 3, 8, 8), torch.randn(2, 40, 128)
    with torch.no_grad():
        moved = video(latents, 7, text.repeat_interleave(3, 0)).sample
        still = torch.stack([unet(latents[:, :, t], 7, text).sample for t in range(3)], 2)
    torch.testing.assert_close(moved, still, msg="new motion modules do nothing")


def test_encoded_scenes_are_read_as_they_were_drawn(folder: Path) -> None:
    scenes = encoded_scenes.load(folder / "scenes")
    drawn = SyntheticWorld("train")[1]
    assert len(scenes) == 2 and scenes.latents.shape == (2, LATENT_CHANNELS, 17, 8, 8)
    assert (scenes.ids[1].numpy() == drawn.ids[:: encoded_scenes.KEPT_IDS]).all()
    assert scenes.prompts[1] == drawn.plan.prompt
    share = (drawn.ids > 0).mean() * 255
    assert abs(float(scenes.coverage[1].float().mean()) - share) < 1
    with pytest.raises(ValueError, match="no encoded scenes"):
        encoded_scenes.load(folder / "nowhere")


def test_scenes_of_two_autoencoders_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    path = next((folder / "scenes").glob("*.safetensors"))
    shutil.copy(path, tmp_path / "000000.safetensors")
    with safe_open(path, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        save_file(tensors, tmp_path / "000032.safetensors", {**opened.metadata(), "encoder": "another"})
    with pytest.raises(ValueError, match="000032.safetensors is of another autoencoder.*expected scenes of one"):
        encoded_scenes.load(tmp_path)


def test_a_step_draws_the_same_whatever_was_drawn_before(folder: Path) -> None:
    source = noisy_scenes.noisy_scenes(folder / "scenes", folder, seed=0)

    def drawn(step: int) -> list[Tensor]:
        source.at_step(step)
        index, frame, latents, _ = source.pictures(3)
        return [index, frame, *source.noised(latents)]

    first, other, again = drawn(7), drawn(8), drawn(7)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[3], other[3])


def test_mask_pictures_are_the_palette() -> None:
    ids = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)
    found = controlnet.mask_pictures(ids)
    assert (found[0].movedim(0, -1) * 255 == torch.tensor(PALETTE[ids[0].numpy()].astype(np.float32))).all()


def test_a_new_controlnet_adds_nothing_and_one_that_learnt_does() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**train_unet.UNET_CONFIG)
    made = controlnet.new_controlnet(unet)
    latents, text, ids = torch.randn(2, LATENT_CHANNELS, 8, 8), torch.randn(2, 40, 128), torch.ones(2, 128, 128).long()
    with torch.no_grad():
        plain = unet(latents, 7, text).sample
        torch.testing.assert_close(controlnet.steered(unet, made, latents, 7, text, ids), plain)
        made.controlnet_mid_block.weight.normal_()
        assert not torch.allclose(controlnet.steered(unet, made, latents, 7, text, ids), plain, atol=1e-3)


def test_an_untrained_model_errs_by_about_one(folder: Path) -> None:
    source = noisy_scenes.noisy_scenes(folder / "scenes", folder, seed=0)
    errors = measure.noise_errors(folder, source, batches=1)
    assert set(errors) == {"nothing", "caption", "caption and masks", "clips"}
    assert all(0.7 < value < 1.5 for value in errors.values()), errors
