"""Few-shot training on a Stable-Diffusion-shaped folder of random weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import stages.cache
import stages.train
from benchmarks.few_shot import read_command_line
from stages.few_shot import main, read_arguments, run
from stages.settings import Settings
from ttm.data.clip_folder import Clip
from ttm.data.video_reader import read_video
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.embedded import embedded_folder
from ttm.pipelines.few_shot import FewShotPipeline

REAL = Path(os.environ.get("TTM_REAL_DATA", Path(__file__).parents[3] / "shared/data")) / "dog.mp4"
SIZE, WINDOW = 16, 4


@pytest.fixture(scope="module")
def base(save_stable_diffusion: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stable_diffusion(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of a square, with masks: one window each."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(2):
        frames, ids = np.full((WINDOW, SIZE, SIZE, 3), 60 + 90 * number, np.uint8), np.zeros((WINDOW, SIZE, SIZE), int)
        for t in range(WINDOW):
            frames[t, 4:10, 2 * t : 2 * t + 6], ids[t, 4:10, 2 * t : 2 * t + 6] = (230, 20, 20), 1 + number
        write_video(folder / f"a-red-square-moves-{number}.mp4", frames, 8)
        MaskTrajectory(ids).save(folder / f"a-red-square-moves-{number}.npz")
    return folder


@pytest.fixture
def settings(base: Path, clips: Path, tmp_path: Path) -> Callable[..., Settings]:
    def build(*changes: str, output: str = "run") -> Settings:
        small = [
            f"data.num_frames={WINDOW}", f"data.clips.height={SIZE}", f"data.clips.width={SIZE}", "precision=no",
            "optimizer.lr=1e-2", "max_steps=4", "checkpoint_every=2", "log_every=1", "tracker=none",
            "export_dtype=float32", "num_threads=1",
        ]  # fmt: skip
        return read_arguments([str(clips), "--base", str(base), "-o", str(tmp_path / output), *small, *changes])

    return build


def test_it_trains_what_the_paper_trains_and_opens_as_a_pipeline(settings: Callable[..., Settings], base: Path) -> None:
    made = settings()
    finished = run(made)
    assert finished.complete and np.isfinite(finished.loss)
    folder = Path(made.output_dir)
    weights = load_file(folder / "few_shot.safetensors")
    assert all({"attn1", "attn2", "motion_modules", "mask_projection"} & set(name.split(".")) for name in weights)
    assert any("mask_projection" in name for name in weights) and any("motion_modules" in name for name in weights)
    pipe = FewShotPipeline.from_pretrained(folder)
    plain = dict(FewShotPipeline.from_base(str(base)).unet.named_parameters())
    for name, value in pipe.unet.named_parameters():
        assert torch.equal(value, plain[name]) == (name not in weights), name
    record = json.loads((folder / "few_shot.json").read_text())
    assert record["trained_on"] == {
        "clips": ["a-red-square-moves-0.mp4", "a-red-square-moves-1.mp4"],
        "prompts": ["a red square moves"], "windows": 2, "steps": 4,
    }  # fmt: skip
    assert pipe.config.num_frames == WINDOW and pipe.config.max_sequence_length == 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_it_leaves_is_the_moving_average(settings: Callable[..., Settings], tmp_path: Path, dtype: str) -> None:
    run(settings(f"export_dtype={dtype}"))
    written = load_file(tmp_path / "run" / "few_shot.safetensors")
    last = max((tmp_path / "run" / "checkpoints").iterdir())
    average, raw = load_file(last / "ema.safetensors"), load_file(last / "model.safetensors")
    assert written.keys() == average.keys()
    for name, value in written.items():
        assert torch.equal(value, average[name].to(value.dtype)), name
    assert any(not torch.equal(average[name], raw[name]) for name in average)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(settings: Callable[..., Settings]) -> None:
    run(settings(output="whole"))
    run(settings("max_steps=2", output="parts"))
    run(settings(output="parts"))
    whole, parts = (load_file(Path(settings(output=n).output_dir) / "few_shot.safetensors") for n in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_of_another_base_or_other_clips_is_not_gone_on_with(
    settings: Callable[..., Settings],
    save_stable_diffusion: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(settings("max_steps=2"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("few_shot.*")}
    made = settings()
    made.host.pipeline = made.host.init_from = str(save_stable_diffusion(tmp_path / "other"))
    with monkeypatch.context() as before_clips_are_read:
        before_clips_are_read.setattr("stages.few_shot.read_clip_folder", None)
        with pytest.raises(ValueError, match=r"another base.*pipeline.*another folder"):
            run(made)
        with pytest.raises(ValueError, match="holds a run with seed=0"):
            run(settings("seed=1"))
    clip = Clip("a-cat-walks.mp4", "a cat walks", *_one_square())
    with pytest.raises(ValueError, match="another clips.*a-red-square-moves-0.mp4.*a-cat-walks.mp4"):
        run(settings(), [clip])
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").glob("few_shot.*")}
    assert run(settings()).step == 4, "the same run goes on"


def test_a_run_keeps_what_its_clips_show(settings: Callable[..., Settings], clips: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clips, tmp_path / "clips")

    def build(steps: int, place: Path = folder) -> Settings:
        made = settings(f"max_steps={steps}")
        made.data.clips.folder = str(place)
        return made

    run(build(1))
    path = tmp_path / "run" / "begun_with.json"
    values = {key: value for key, value in json.loads(path.read_text()).items() if not key.startswith("content")}
    path.write_text(json.dumps(values))  # as of a run of an older release
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert run(build(2, moved)).step == 2
    masks, video = (moved / f"a-red-square-moves-1{suffix}" for suffix in (".npz", ".mp4"))
    kept = masks.read_bytes()
    MaskTrajectory(np.roll(MaskTrajectory.load(masks).ids, 1, axis=1)).save(masks)
    with pytest.raises(ValueError, match="another content of a-red-square-moves-1.mp4.*expected the same"):
        run(build(3, moved))
    masks.write_bytes(kept)
    write_video(video, read_video(video).frames[::-1], 8)
    with pytest.raises(ValueError, match="another content of a-red-square-moves-1.mp4.*expected the same"):
        run(build(3, moved))
    assert run(build(3)).step == 3, "the same run goes on"


def _one_square() -> tuple[np.ndarray, np.ndarray]:
    ids = np.zeros((WINDOW, SIZE, SIZE), np.uint8)
    ids[:, 4:10, 4:10] = 1
    return np.repeat(ids[..., None] * np.uint8(200), 3, axis=-1), ids


def test_low_rank_matrices_are_refused_where_nothing_could_learn_motion(
    settings: Callable[..., Settings], base: Path, tmp_path: Path
) -> None:
    still = tmp_path / "still"
    shutil.copytree(base, still, ignore=shutil.ignore_patterns("motion_adapter"))
    made = settings("--lora", "2", "--base", str(still))
    with pytest.raises(ValueError, match="no motion modules.*expected --motion-adapter"):
        run(made)


def test_the_control_picture_is_kept_for_what_opens_the_folder(settings: Callable[..., Settings]) -> None:
    made = settings("max_steps=1", "--control-picture", "silhouette")
    run(made)
    assert FewShotPipeline.from_pretrained(made.output_dir).config.control_picture == "silhouette"


def test_the_table_is_made_with_the_settings_of_an_embedded_base(clips: Path) -> None:
    table = read_command_line([])
    made = read_arguments([str(clips), "--base", table.base])
    assert (table.steps, table.batch_size, table.lr) == (made.max_steps, made.batch_size, made.optimizer.lr)
    assert (table.weighting, table.vary_colours) == (made.objective.weighting, made.data.clips.vary_colours)
    assert (table.num_frames, table.size) == (made.data.num_frames, made.data.clips.height)
    told = (table.sampling_steps, table.guidance_scale, table.mask_guidance_scale)
    told += (table.controlnet_scale, table.controlnet_guidance_scale, table.sharing_ratio, True)
    assert told == tuple(vars(made.calls).values())


@pytest.mark.parametrize(
    ("adapter", "setting", "expected"),
    [
        (None, [], "scaled_linear"),
        ("own", [], "scaled_linear"),
        ("other", [], "linear"),
        ("guyoww/animatediff-motion-adapter-v1-5-2", [], "linear"),
        ("other", ["objective.beta_schedule=scaled_linear"], "scaled_linear"),
        ("own", ["objective.beta_schedule=linear"], "linear"),
    ],
)
@pytest.mark.parametrize("embedded", [False, True])
def test_motion_modules_of_others_learn_on_the_betas_they_know(
    clips: Path, base: Path, adapter: str | None, setting: list[str], expected: str, embedded: bool
) -> None:
    folder = embedded_folder("ttm-tiny-unet") if embedded else base
    place = {"own": f"{folder}/motion_adapter", "other": f"{base.parent}/motion_adapter"}.get(str(adapter), adapter)
    words = [str(clips), "--base", "ttm-tiny-unet" if embedded else str(base), *setting]
    made = read_arguments(words if place is None else [*words, "--motion-adapter", place])
    assert made.objective.beta_schedule == expected


def test_a_folder_keeps_the_betas_it_learnt_on_and_draws_first_frames_on_stable_diffusions(
    settings: Callable[..., Settings], base: Path, tmp_path: Path
) -> None:
    adapter = shutil.copytree(base / "motion_adapter", tmp_path / "adapter")
    untrained = FewShotPipeline.from_base(str(base), motion_adapter=str(adapter))
    assert untrained.scheduler.config.beta_schedule == "linear"
    own, linear = (settings("max_steps=1", *more, output=name) for name, more in
                   (("own", []), ("linear", ["--motion-adapter", str(adapter)])))  # fmt: skip
    masks, first, last = MaskTrajectory(_one_square()[1]), [], []
    for made, schedule in ((own, "scaled_linear"), (linear, "linear")):
        run(made)
        record = json.loads((Path(made.output_dir) / "few_shot.json").read_text())
        assert record["noise"]["beta_schedule"] == schedule
        pipe = FewShotPipeline.from_pretrained(made.output_dir)
        assert pipe.scheduler.config.beta_schedule == schedule
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        told = {"generator": generator, "num_inference_steps": 3, "output_type": "latent"}
        latents = pipe("a dog runs", masks, **told).frames[0]
        first.append(latents[:, 0])
        last.append(latents[:, 1:])
    assert torch.equal(first[0], first[1]) and not torch.allclose(last[0], last[1])


def test_a_number_of_clips_that_is_not_few_is_told_once(
    settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    run(settings("max_steps=1"))
    assert sum("holds 2 clips; expected 5 to 8" in record.message for record in caplog.records) == 1


def test_what_calls_use_by_default_is_kept_too(settings: Callable[..., Settings]) -> None:
    changes = ("max_steps=1", "calls.guidance_scale=1.5", "calls.image_guidance_scale=2", "calls.num_inference_steps=3")
    of_controlnet = ("calls.controlnet_conditioning_scale=1.75", "calls.controlnet_guidance_scale=1.25")
    made = settings(*changes, *of_controlnet)
    run(made)
    opened = FewShotPipeline.from_pretrained(made.output_dir).config
    assert (opened.guidance_scale, opened.image_guidance_scale, opened.num_inference_steps) == (1.5, 2, 3)
    assert (opened.controlnet_conditioning_scale, opened.controlnet_guidance_scale) == (1.75, 1.25)
    made = settings(*changes, "host.mask_cross_attention=false", output="without masks")
    run(made)
    assert FewShotPipeline.from_pretrained(made.output_dir).config.image_guidance_scale == 1


@pytest.mark.parametrize("preset", ["none", "8gb", "24gb"])
def test_an_embedded_base_takes_the_presets_for_memory(
    clips: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    made = read_arguments([str(clips), "--base", "ttm-tiny-unet", f"memory={preset}"])
    assert made.memory.name == preset and made.max_steps == 1600


def test_the_seed_decides_what_the_weights_do_not_hold(settings: Callable[..., Settings]) -> None:
    made = [settings("max_steps=1", "seed=3", "--lora", "2", output=name) for name in ("one", "two")]
    weights = []
    for each in made:
        run(each)
        weights.append(load_file(Path(each.output_dir) / "few_shot.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_other_weights_under_the_name_of_the_base_are_told(settings: Callable[..., Settings], base: Path) -> None:
    made = settings("max_steps=1")
    run(made)
    path = next((base / "vae").glob("*.safetensors"))
    before = path.read_bytes()
    try:
        save_file({name: value * 1.5 for name, value in load_file(path).items()}, path, {"format": "pt"})
        with pytest.raises(ValueError, match="was trained on other weights than .* has now"):
            FewShotPipeline.from_pretrained(made.output_dir)
        with pytest.raises(ValueError, match="another base_fingerprint"):
            run(settings("max_steps=2"))
    finally:
        path.write_bytes(before)
    FewShotPipeline.from_pretrained(made.output_dir)


def test_an_embedded_base_is_learnt_on_at_its_own_size(clips: Path) -> None:
    embedded, public = (read_arguments([str(clips), "--base", name]) for name in ("ttm-tiny-unet", "someone/else"))
    assert (embedded.data.num_frames, embedded.data.clips.height, embedded.data.clips.width) == (17, 128, 128)
    assert (public.data.num_frames, public.data.clips.height, public.data.clips.width) == (16, 320, 512)
    assert embedded.max_steps < 0.2 * public.max_steps and embedded.calls.guidance_scale < public.calls.guidance_scale
    for same in ("stage", "motion", "optimizer.betas", "host.first_frame_attention"):
        assert attrgetter(same)(embedded) == attrgetter(same)(public)


def test_lora_trains_low_rank_matrices_and_the_new_layers(settings: Callable[..., Settings]) -> None:
    made = settings("--lora", "2", "max_steps=1")
    run(made)
    weights = load_file(Path(made.output_dir) / "few_shot.safetensors")
    assert all("lora" in name or "mask_projection" in name for name in weights)
    assert {value.shape[0] for name, value in weights.items() if "lora_A" in name} == {2}
    pipe = FewShotPipeline.from_pretrained(made.output_dir)
    assert not any("lora" in name for name, _ in pipe.unet.named_parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["data.num_frames=9"], "expected 2 to 8, what the motion modules know"),
        (["data.clips.height=17"], "multiple of 2"),
        (["data.clips.fps=9"], "expected at least 9"),
        (["data=synthetic"], "expected data=clips"),
        (["optimizer.lr=0"], "optimizer.lr"),
        (["objective=v_prediction"], "expected epsilon"),
        (["sharding=full"], "sharding is full and stage few_shot"),
        (["sample_every=5"], "sample_every is set and stage few_shot"),
        (["data.clips.fps=0"], "fps is 0.0; expected frames a second above 0"),
        (["data.clips.fps=nan"], "fps is nan; expected"),
        (["motion.left_out=0.5"], "motion.left_out is 0.5 and stage few_shot"),
        (["calls.guidance_scale=-1"], "calls.guidance_scale is -1.0; expected a number of steps, or a scale"),
        (["calls.num_inference_steps=0"], "calls.num_inference_steps is 0"),
        (["host.pipeline=some/base"], "host.pipeline is no setting of few-shot training; expected --base"),
        (["+host.motion_adapter=a"], "expected --motion-adapter"),
        (["output_dir=elsewhere"], "an output_dir beside -o"),
        (["--base", "nowhere/at/all"], "There is no folder"),
    ],
)
def test_what_it_refuses(settings: Callable[..., Settings], changes: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run(settings(*changes))


def test_the_command_line_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"stages.few_shot: .*no setting 'optimizer.lx'"):
        main([str(tmp_path), "optimizer.lx=3"])
    with pytest.raises(SystemExit, match="stages.few_shot: .*nowhere is no folder"):
        main([str(tmp_path / "nowhere"), "--base", "someone/else", "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here")
def test_a_real_dog_cut_into_clips(settings: Callable[..., Settings], tmp_path: Path) -> None:
    folder = tmp_path / "dog"
    folder.mkdir()
    for number in range(2):
        video = read_video(REAL, 16, start=16 * number, size=(36, 64))
        write_video(folder / f"a-dog-turns-{number}.mp4", video.frames, 30)
        ids = np.zeros(video.frames.shape[:3], np.uint8)
        ids[:, 18:28, 22:36] = 1
        MaskTrajectory(ids).save(folder / f"a-dog-turns-{number}.npz")
    made = settings("max_steps=2")
    made.data.clips.folder = str(folder)
    assert run(made).complete
    pipe = FewShotPipeline.from_pretrained(made.output_dir)
    pipe.set_progress_bar_config(disable=True)
    masks = MaskTrajectory.load(folder / "a-dog-turns-0.npz").resample(7)
    out = pipe("a dog turns", masks, video.frames[0], num_inference_steps=2)
    assert len(out.frames[0]) == 7 and out.frames[0][0].size == (SIZE, SIZE)


@pytest.mark.parametrize("program", [stages.train.main, stages.cache.main])
def test_the_programs_of_the_two_stages_name_the_one_that_reads_clips(program: Callable[..., None]) -> None:
    words = ["stage=few_shot", "data=clips", "objective=epsilon", "data.encode_scenes=1"]
    with pytest.raises(SystemExit, match="stage is few_shot; expected .*python -m stages.few_shot CLIPS"):
        program(words)
