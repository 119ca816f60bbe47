"""The library's pipeline as a benchmark sees it, and the program itself, on random weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, DDIMScheduler, FlowMatchEulerDiscreteScheduler
from hydra import compose, initialize_config_dir
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from benchmarks.measure import Settings
from benchmarks.measure_run import benchmark_measures
from benchmarks.measures import autoencoder, stage_one, stage_two
from benchmarks.pipeline_subject import PipelineSubject, weight_files
from benchmarks.scenes import load_scene
from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.models.unet_motion import MaskedUNetMotionModel
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.image_to_video import Pipeline

SETTINGS = Settings(scenes=2, local_scenes=1, size=32, num_frames=5)
ROOT = Path(__file__).resolve().parents[2]


def transformer(masked: int) -> MaskedWanTransformer3DModel:
    return MaskedWanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=16, ffn_dim=32, num_layers=1, rope_max_seq_len=32, condition_channels=8,
        num_masked_blocks=masked,
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "the": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    text = UMT5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()  # fmt: skip
    return Pipeline(
        vae=vae,
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>"),
        text_encoder=UMT5EncoderModel(text).eval(),
        motion_transformer=transformer(0),
        transformer=transformer(1),
        motion_scheduler=FlowMatchEulerDiscreteScheduler(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        num_frames=5,
        height=32,
        width=32,
        num_inference_steps=1,
        motion_num_inference_steps=1,
        max_sequence_length=8,
    )


@pytest.fixture(scope="module")
def unet_pipe(pipe: Pipeline) -> Pipeline:
    """The same with the U-Net, its image autoencoder and DDIM."""
    torch.manual_seed(0)

    def unet(masked: int) -> MaskedUNetMotionModel:
        return MaskedUNetMotionModel(
            down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
            up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
            block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
            num_attention_heads=2, motion_num_attention_heads=2, motion_max_seq_length=8, condition_channels=8,
            num_masked_blocks=masked,
        ).eval()  # fmt: skip

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4), norm_num_groups=2, mid_block_add_attention=False,
    ).eval()  # fmt: skip
    v = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "clip_sample": False}
    schedulers = {name: DDIMScheduler(**v) for name in ("motion_scheduler", "scheduler")}
    parts = {"vae": vae, "motion_transformer": unet(0), "transformer": unet(1), **schedulers}
    names = ("num_frames", "height", "width", "num_inference_steps", "motion_num_inference_steps")
    settings = {name: pipe.config[name] for name in (*names, "max_sequence_length")}
    return Pipeline(**{**pipe.components, **parts}, **settings)


@pytest.fixture(scope="module")
def subject(pipe: Pipeline) -> PipelineSubject:
    return PipelineSubject(pipe, "random")


@pytest.mark.parametrize("kind", ["pipe", "unet_pipe"])
def test_every_measure_of_the_stages_runs_on_a_real_pipeline(kind: str, request: pytest.FixtureRequest) -> None:
    subject = PipelineSubject(request.getfixturevalue(kind), "random")
    assert subject.size == (32, 32) and subject.num_frames == 5
    for module in (autoencoder, stage_one, stage_two):
        measure = module.MEASURE
        rows = [measure.measure(subject, SETTINGS, item).row for item in measure.items(SETTINGS)]
        figures = measure.summarise(rows)
        assert any(figure.value is not None for figure in figures)
        assert all(figure.count > 0 for figure in figures if figure.goal is not None and figure.value is not None)
        reached = {figure.name for figure in figures if figure.reached and figure.unit != "dB"}
        if kind == "unet_pipe":  # of its random autoencoder's round trip, which follows nothing either
            reached -= {"stage 2 follows the true trajectory, share of round trip"}
        assert reached == set(), "random weights reach no goal"


def test_sampling_follows_the_seed(subject: PipelineSubject) -> None:
    scene = load_scene(SETTINGS, "single-000")
    trajectory = MaskTrajectory(scene.ids)
    first = subject.render(scene.frames[0], trajectory, scene.plan, 1)
    assert first.shape == scene.frames.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, subject.render(scene.frames[0], trajectory, scene.plan, 1))
    assert (first != subject.render(scene.frames[0], trajectory, scene.plan, 2)).any()


def test_a_round_trip_is_made_once_for_equal_clips(subject: PipelineSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = load_scene(SETTINGS, "single-000").frames, load_scene(SETTINGS, "multi-000").frames
    decoded = subject.round_trip(first)
    assert (subject.round_trip(second) != decoded).any()
    kept = decoded.copy()
    decoded[:] = 0  # what a caller does to its copy
    monkeypatch.setattr(subject.pipe.vae, "decode", None)
    np.testing.assert_array_equal(subject.round_trip(first.copy()), kept)


def test_everything_with_given_masks_and_another_size(subject: PipelineSubject) -> None:
    scene = load_scene(SETTINGS, "single-000")
    out = subject.generate(scene.frames[0], scene.plan.prompt, 1, first_ids=scene.ids[0])
    assert out.frames.shape == (5, 32, 32, 3) and out.plan.phrases == scene.plan.phrases
    wide = np.repeat(scene.frames[0], 2, axis=1)
    ids = np.repeat(scene.ids[0], 2, axis=1)
    out = subject.generate(wide, scene.plan.prompt, 1, first_ids=ids, size=(32, 64))
    assert out.frames.shape == (5, 32, 64, 3)
    assert subject.fit(wide, (32, 64)).shape == (32, 64, 3) and subject.fit_ids(ids, (32, 64)).shape == (32, 64)


def test_objects_are_counted_on_the_token_grid(subject: PipelineSubject) -> None:
    ids = np.zeros((5, 32, 32), np.uint8)
    ids[:, 2:20, 2:20] = 1
    ids[3, 30, 30] = 2  # one pixel in one frame
    assert subject.object_tokens(MaskTrajectory(ids), 3) == (2, 2)


def test_the_program_measures_a_saved_folder(pipe: Pipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")
    command = [sys.executable, "-m", "benchmarks.run", "suite=synthetic", "scenes=2", "measures=[autoencoder,sa_v]"]
    command += [f"model={tmp_path / 'model'}", f"output={tmp_path / 'out'}", "strips=1"]
    environment = os.environ | {"TTM_REAL_DATA": str(tmp_path / "nowhere"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "autoencoder PSNR" in ran.stdout and "skipped: " in ran.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["figures"][0]["count"] == 2 and report["settings"]["size"] == 32
    assert (tmp_path / "out" / "strips" / "autoencoder-single-000.png").is_file()
    wrong = subprocess.run(
        [*command, "measures=[autoencodre]"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ") and "expected some of" in wrong.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("videos=some/folder", "videos has no part in suite=synthetic"),
        ("score.features=tiny", "score.features has no part"),
        ("clip.height=64", "clip.height has no part"),
        ("give=[plan]", "give has no part"),
        ("score.weights.clip=x", "score.weights.clip has no part"),
        ("dtype=float23", "dtype is 'float23'; expected one of float32, bfloat16, float16"),
    ],
)
def test_a_setting_that_would_be_left_out_is_refused(setting: str, said: str) -> None:
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        config = compose("benchmark", ["suite=synthetic", setting])
    with pytest.raises(ValueError, match=said):
        benchmark_measures(config)


def test_rows_belong_to_the_embedded_weights_too() -> None:
    """The name of an embedded model is no path: its files must be found all the same."""
    names = {path.name for path in weight_files(SimpleNamespace(config={"_name_or_path": "ttm-tiny"}))}
    assert "model_index.json" in names and any(name.endswith(".safetensors") for name in names)
    assert weight_files(SimpleNamespace(config={"_name_or_path": "owner/not-here"})) == []
    assert weight_files(SimpleNamespace(config={})) == []


def test_rows_of_a_model_of_the_hub_belong_to_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models of one name, by two owners, as the Hub's cache keeps them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for owner in ("alice", "bob"):
        revision = tmp_path / f"models--{owner}--ttm" / "snapshots" / f"{owner}s"
        (revision / "vae").mkdir(parents=True)
        (revision / "model_index.json").write_text("{}")
        (revision / "vae" / "w.safetensors").write_text(owner)
        (revision.parent.parent / "refs").mkdir()
        (revision.parent.parent / "refs" / "main").write_text(revision.name)
    found = [weight_files(SimpleNamespace(config={"_name_or_path": f"{owner}/ttm"})) for owner in ("alice", "bob")]
    assert [sorted(path.name for path in files) for files in found] == [["model_index.json", "w.safetensors"]] * 2
    assert [path.read_text() for files in found for path in files if path.suffix == ".safetensors"] == ["alice", "bob"]
