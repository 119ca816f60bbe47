from __future__ import annotations

import io
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stages.host import build_transformer, load_text, load_vae
from stages.objectives import build_objective
from stages.samples import build_sampler
from stages.settings import Settings
from stages.settings_loading import load_settings
from stages.tracking import Tracker, check_tracker, clock, gif_bytes
from stages.train import run
from stages.trainer import Trainer
from stages.validation import validation_clips
from ttm.pipelines.image_to_motion import ImageToMotionPipeline
from ttm.pipelines.motion_to_video import MotionToVideoPipeline

Build = Callable[..., Settings]


def test_gif_holds_every_frame_at_its_pace() -> None:
    frames = np.zeros((5, 16, 24, 3), np.uint8)
    for t in range(5):
        frames[t, :, 4 * t : 4 * t + 4] = (255, 0, 0)
    picture = Image.open(io.BytesIO(gif_bytes(frames, fps=8)))
    assert picture.n_frames == 5 and picture.size == (24, 16) and picture.info["duration"] == 120
    for t in range(5):
        picture.seek(t)
        np.testing.assert_allclose(np.asarray(picture.convert("RGB")).astype(int), frames[t], atol=8)


@pytest.mark.parametrize(
    ("stage", "host"), [("image_to_motion", "wan"), ("motion_to_video", "wan"), ("motion_to_video", "unet")]
)
def test_a_run_shows_numbers_and_videos_in_tensorboard(settings: Build, stage: str) -> None:
    made = settings(
        f"stage={stage}", "tracker=tensorboard", "max_steps=2", "sample_every=2", "sample_scenes=2", "sample_steps=1"
    )
    run(made)
    events = EventAccumulator(str(Path(made.output_dir) / "tensorboard")).Reload()
    assert {"train/loss", "train/lr", "train/gradient_norm", "train/clips_per_second"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    scores = {"image_to_motion": ["iou"], "motion_to_video": ["psnr", "psnr_objects"]}[stage]
    for name in scores:
        assert [event.step for event in events.Scalars(f"validation/{name}")] == [2]
    shown = events.Images("samples")
    assert [event.step for event in shown] == [2]
    picture = Image.open(io.BytesIO(shown[0].encoded_image_string))
    assert picture.size == (64, 64) and picture.n_frames >= 2  # two scenes side by side, the true clip below


@pytest.mark.parametrize("saves", [True, False])
def test_samples_are_encoded_as_the_preset_says(settings: Build, monkeypatch: pytest.MonkeyPatch, saves: bool) -> None:
    made = settings(f"memory.vae_slicing={saves}")
    vae = load_vae(made.host.pipeline)
    monkeypatch.setattr("stages.samples.load_vae", lambda *_: vae)
    build_sampler(made, torch.device("cpu"))
    assert vae.use_slicing == saves


def test_samples_are_decoded_in_tiles_where_the_preset_says_so_and_encoded_whole(
    overrides: list[str], unet_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, images = load_vae(str(unet_folder)), torch.rand(1, 3, 64, 64)  # its tiles are of 32 pixels
    latents = whole.encode(images).latent_dist.mode()
    for tiles in (True, False):
        vae = load_vae(str(unet_folder))
        monkeypatch.setattr("stages.samples.load_vae", lambda *_, vae=vae: vae)
        build_sampler(load_settings([*overrides, f"memory.vae_tiling={tiles}"]), torch.device("cpu"))
        assert torch.equal(vae.encode(images).latent_dist.mode(), latents)
        assert torch.equal(vae.decode(latents).sample, whole.decode(latents).sample) != tiles
        small = latents[..., :4, :4]
        assert torch.equal(vae.decode(small).sample, whole.decode(small).sample)


@pytest.mark.parametrize(
    ("stage", "host", "motion"),
    [
        ("image_to_motion", "wan", "masks"),
        ("motion_to_video", "wan", "masks"),
        ("motion_to_video", "wan", "none"),
        ("motion_to_video", "unet", "masks"),
    ],
)
def test_samples_are_those_of_the_pipeline_though_the_text_encoder_has_gone(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch, stage: str, motion: str
) -> None:
    sampled = ["sample_every=1", "sample_scenes=2", "sample_steps=2"]
    made = load_settings([*overrides, f"stage={stage}", f"motion={motion}", *sampled])
    loaded = []
    monkeypatch.setattr("stages.samples.load_text", lambda *told: loaded.append(load_text(*told)) or loaded[0])
    sample = build_sampler(made, torch.device("cpu"))
    assert not sum(parameter.numel() for parameter in loaded[0][1].parameters())
    model = build_transformer(made).eval()
    with torch.no_grad():
        drawn = sample(model, 0, 1)
    vae, scheduler = load_vae(made.host.pipeline), build_objective(made.objective).scheduler()
    told = {"max_sequence_length": made.host.max_sequence_length, "motion": motion}
    kind = ImageToMotionPipeline if stage == "image_to_motion" else MotionToVideoPipeline
    pipe = kind(vae, *load_text(made.host.pipeline), model, scheduler, **told)
    for number, clip in enumerate(validation_clips(made, vae)):
        words = {"height": 32, "width": 32, "num_inference_steps": 2, "guidance_scale": 1.0,
                 "image_guidance_scale": 1.0, "generator": torch.Generator().manual_seed(number)}  # fmt: skip
        if stage == "image_to_motion":
            frames = pipe(clip.frames[0], clip.plan, clip.moves.ids[0], num_frames=5, **words).frames
        else:
            video = pipe(clip.frames[0], clip.plan, clip.moves, output_type="np", **words).frames[0]
            frames = (video * 255).round().astype(np.uint8)
        # A text embedded beside others differs in its last bits.
        np.testing.assert_allclose(drawn[number].frames.astype(int), frames.astype(int), atol=1)


def test_samples_leave_the_training_as_it_was(settings: Build, tmp_path: Path) -> None:
    logs = []
    for every in (0, 1):
        sampling = [f"sample_every={every}", "sample_scenes=1", "sample_steps=1"]
        made = settings("max_steps=3", *sampling, f"output_dir={tmp_path / str(every)}")
        run(made)
        lines = (Path(made.output_dir) / "log.jsonl").read_text().splitlines()
        logs.append([entry["loss"] for entry in map(json.loads, lines) if "loss" in entry])
    assert logs[0] == logs[1]


def test_drawing_samples_does_not_count_as_training(settings: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 1 second here, and drawing 100."""
    now, step = [0.0], Trainer._accumulate

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("stages.trainer.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("stages.samples.build_sampler", lambda *_: "a sampler")
    monkeypatch.setattr(Trainer, "_accumulate", lambda self: pass_by(1) or step(self))
    monkeypatch.setattr(Trainer, "_show", lambda self, tracker: pass_by(100))
    made = settings("log_every=4", "checkpoint_every=9", "sample_every=3", "max_steps=4", "batch_size=4")
    run(made)
    (logged,) = (Path(made.output_dir) / "log.jsonl").read_text().splitlines()
    assert json.loads(logged)["clips_per_second"] == 4


def test_hours_go_beyond_a_day() -> None:
    assert [clock(seconds) for seconds in (59.9, 3661, 100 * 3600)] == ["00:00:59", "01:01:01", "100:00:00"]


def test_clips_of_several_shapes_stand_side_by_side(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "tensorboard", 0)
    tracker.videos(1, "samples", [np.full((3, 8, 12, 3), 200, np.uint8), np.full((5, 16, 4, 3), 100, np.uint8)])
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    picture = Image.open(io.BytesIO(events.Images("samples")[0].encoded_image_string))
    assert picture.size == (16, 16) and picture.n_frames >= 1


def test_only_what_a_killed_run_did_after_its_checkpoint_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Event files are read in the order of the seconds in their names.
    later = SimpleNamespace(time=count(1).__next__)
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer.time", later)
    for first, steps in ((0, (1, 2, 3)), (0, (1, 2, 3, 4)), (2, (3,))):
        tracker = Tracker(tmp_path, "tensorboard", first)
        for step in steps:
            tracker.numbers(step, {"loss": float(len(steps))})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 4), (2, 4), (3, 1)]


def test_weights_and_biases_keeps_one_run_over_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    logged: list[tuple[dict, int]] = []

    class Run:
        def log(self, values: dict, step: int) -> None:
            logged.append((values, step))

        def finish(self) -> None:
            pass

    begun = []
    # The program behind wandb takes seconds to start; its own tests are its own.
    monkeypatch.setattr(wandb, "init", lambda **told: begun.append(told) or Run())
    for first in (0, 2):
        tracker = Tracker(tmp_path, "wandb", first, {"seed": 3})
        tracker.numbers(first + 1, {"loss": 0.5})
        tracker.videos(first + 1, "samples", [np.zeros((2, 4, 4, 3), np.uint8)])
        tracker.close()
    assert begun[0]["id"] == begun[1]["id"] and begun[0]["config"] == {"seed": 3} and begun[0]["resume"] == "allow"
    assert [step for _, step in logged] == [1, 1, 3, 3] and logged[0][0] == {"train/loss": 0.5}
    assert isinstance(logged[1][0]["samples"], wandb.Video)
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == [
        "step-00000001-samples.gif",
        "step-00000003-samples.gif",
    ]


def test_a_tracker_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.tracking.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="tracker=wandb needs the package wandb"):
        check_tracker("wandb")
    check_tracker("none")


def test_without_tensorboard_the_log_remains(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "none", 0)
    tracker.numbers(3, {"loss": 0.123456789})
    tracker.videos(3, "samples", [np.zeros((2, 4, 4, 3), np.uint8)])
    tracker.close()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 3, "loss": 0.123457}
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
