from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from stages.draws import sample_rng
from stages.host import build_transformer, load_vae
from stages.latent_cache import frames_to_tensor
from stages.prepared import PreparedClips, ShardIndex, split_clips
from stages.settings import Settings
from stages.train import build_task, main, run
from ttm.data.clip_manifest import ClipFolderManifest
from ttm.data.prepared_clips import read_clips, read_shard, write_shard
from ttm.motion.carried_frame import carry_first_frame
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.motion.token_grid import object_coverage
from ttm.pipelines.autoencoders import decode_latents, encode_video
from ttm.pipelines.inputs import to_uint8

Build = Callable[..., Settings]


@pytest.fixture
def prepared(settings: Build, prepared_folder: Path) -> Build:
    def build(*changes: str) -> Settings:
        return settings("data=prepared", f"data.folder={prepared_folder}", "data.held_out=0", *changes)

    return build


def _open(settings: Settings, variants: int = 0, carried: bool = False) -> PreparedClips:
    return PreparedClips(settings, load_vae(settings.host.pipeline), (1, 2, 2), variants, carried)


def test_a_clip_is_read_from_the_middle_of_its_shard(prepared_folder: Path) -> None:
    rows = ClipFolderManifest.load(prepared_folder).rows
    index = ShardIndex(prepared_folder, rows)
    by_id = {clip.clip_id: clip for clip in read_clips(prepared_folder)}
    for row in rows[::-1]:
        mine, other = index.read(row), by_id[row.clip_id]
        assert mine.clip_id == row.clip_id and mine.plan == other.plan and mine.video == other.video
        np.testing.assert_array_equal(mine.trajectory.ids, other.trajectory.ids)
        assert (mine.latents is None) == (other.latents is None)
        if mine.latents is not None:
            np.testing.assert_array_equal(mine.latents["video"], other.latents["video"])


def test_every_step_is_of_one_bucket_and_every_clip_comes_once_an_epoch(prepared: Build) -> None:
    clips = _open(prepared("batch_size=2"))
    assert len(clips) == 16 and clips.shapes == [(5, 32, 32), (5, 32, 48), (9, 32, 32), (9, 32, 48)]
    for epoch in range(2):
        seen: Counter[int] = Counter()
        for step in range(8 * epoch, 8 * epoch + 8):
            numbers = clips.order(0, np.arange(2 * step, 2 * step + 2))
            read = clips.rows(numbers)
            assert len({clips.rows_of[number].shape for number in numbers}) == 1
            assert read.video.shape[1:] == read.motion.shape[1:] == clips.latent_shapes[clips.rows_of[numbers[0]].shape]
            assert read.coverage.shape[1] == 2
            seen.update(numbers.tolist())
        assert seen == Counter(range(16))
    # A process that has half of the samples of a step finds the same clips.
    halves = [clips.order(0, np.array([index]))[0] for index in range(32)]
    np.testing.assert_array_equal(clips.order(0, np.arange(32)), halves)


def test_rows_are_what_the_autoencoder_makes_of_the_clip(prepared: Build, prepared_folder: Path) -> None:
    made = prepared()
    clips, vae = _open(made), load_vae(made.host.pipeline)
    by_id = {clip.clip_id: clip for clip in read_clips(prepared_folder)}
    for number in range(16):
        row = clips.rows_of[number]
        clip, read = by_id[row.clip_id], clips.rows([number])
        motion = encode_video(vae, frames_to_tensor([clip.trajectory.to_video()]))
        torch.testing.assert_close(read.motion, motion, rtol=2e-3, atol=2e-3)
        grid = tuple(read.video.shape[2:])
        coverage = object_coverage(torch.from_numpy(clip.trajectory.ids[None]), 2, grid)
        assert torch.equal(read.coverage, coverage) and read.plans == [clip.plan]
        if clip.latents is None:  # made from the video when it is read
            video = encode_video(vae, frames_to_tensor([clip.frames()]))
            torch.testing.assert_close(read.video, video, rtol=2e-3, atol=2e-3)


def test_a_corrupted_variant_spoils_motion_and_coverage_alike_and_leaves_the_video(prepared: Build) -> None:
    from stages.corruption import corrupt_ids

    made = prepared("data.corruption.jitter=6")
    clips = _open(made, variants=1)
    true, spoiled = (clips.rows([2], np.array([variant])) for variant in (-1, 0))
    assert torch.equal(true.video, spoiled.video) and not torch.equal(true.motion, spoiled.motion)
    ids = clips.index.read(clips.rows_of[2]).trajectory.ids
    expected = corrupt_ids(ids, made.data.corruption, sample_rng(made.data.seed, 2, "corruption"))
    motion = encode_video(clips.vae, frames_to_tensor([MaskTrajectory(expected).to_video()]))
    torch.testing.assert_close(spoiled.motion, motion, rtol=2e-3, atol=2e-3)


def test_the_first_frame_of_a_clip_is_carried_along_its_masks(prepared: Build, prepared_folder: Path) -> None:
    clips = _open(prepared(), variants=1, carried=True)
    by_id = {clip.clip_id: clip for clip in read_clips(prepared_folder)}
    for number in range(16):
        clip, read = by_id[clips.rows_of[number].clip_id], clips.rows([number])
        if clip.video is None:  # nothing but latents to tell what it looks like
            decoded = decode_latents(clips.vae, torch.from_numpy(clip.latents["video"][None, :, :1]).float())
            first = to_uint8(decoded)[0]
        else:
            first = clip.frames()[0]
        frames = frames_to_tensor([carry_first_frame(first, clip.trajectory.ids)])
        torch.testing.assert_close(read.carried, encode_video(clips.vae, frames), rtol=2e-3, atol=2e-3)
    spoiled, true = (clips.rows([2], np.array([variant])).carried for variant in (0, -1))
    assert not torch.equal(spoiled, true)
    assert _open(prepared()).rows([2]).carried is None


def test_held_out_clips_stay_out_whatever_else_is_there(prepared_folder: Path) -> None:
    manifest = ClipFolderManifest.load(prepared_folder)
    train, held = split_clips(manifest, 5)
    assert len(train) == 11 and len(held) == 5 and not {r.clip_id for r in train} & {r.clip_id for r in held}
    fewer, held_of_fewer = split_clips(ClipFolderManifest(tuple([*train[:4], *held])), 5)
    assert held_of_fewer == held and fewer == train[:4]
    with pytest.raises(ValueError, match="expected some videos to train on"):
        split_clips(manifest, 16)


def test_a_video_that_is_held_out_gives_no_clip_to_train_on(prepared_folder: Path) -> None:
    rows = ClipFolderManifest.load(prepared_folder).rows
    four = [replace(row, source=f"{number // 4}.mp4") for number, row in enumerate(rows)]
    train, held = split_clips(ClipFolderManifest(tuple(four)), 5)
    assert len(held) == 5 and len(train) == 8 and not {r.source for r in train} & {r.source for r in held}


@pytest.mark.parametrize("stage", ["image_to_motion", "motion_to_video"])
def test_a_run_goes_on_after_a_stop_and_texts_may_be_embedded_when_read(
    prepared: Build, tmp_path: Path, stage: str
) -> None:
    straight = prepared(f"stage={stage}", "stage.drop_text=0", f"output_dir={tmp_path / 'straight'}")
    stopped = [f"stage={stage}", "stage.drop_text=0", f"output_dir={tmp_path / 'stopped'}", "data.texts=encoder"]
    whole = run(straight)
    run(prepared(*stopped, "max_steps=3"))
    assert run(prepared(*stopped)).loss == pytest.approx(whole.loss, rel=1e-4)


def test_samples_without_motion_find_their_bucket_at_rest(prepared: Build) -> None:
    made = prepared("stage=motion_to_video", "motion=none", "batch_size=2")
    task = build_task(made, Accelerator(cpu=True), build_transformer(made))
    shapes = {tuple(task.batch(np.arange(2 * step, 2 * step + 2)).data.shape[2:]) for step in range(8)}
    assert shapes == {(2, 4, 4), (2, 4, 6), (3, 4, 4), (3, 4, 6)}


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "manifest.jsonl").unlink(), "expected a folder that tools.prepare filled"),
        (lambda folder: (folder / "shard-00001.tar").unlink(), "shard-00001.tar"),
        (lambda folder: (folder / "shard-00001.tar").write_bytes(b"no archive" * 100), "prepare it again"),
        (lambda folder: _cut(folder / "shard-00002.tar"), "prepare it again"),
        (lambda folder: _replace(folder, '"encoder": "', '"encoder": "other'), "latents of the autoencoder other"),
        (lambda folder: _replace(folder, '"has_video": true', '"has_video": false'), "neither latents nor video"),
        (lambda folder: _replace(folder, '"width": 48', '"width": 50'), "sides that are multiples of 16 and 16"),
    ],
)
def test_a_damaged_folder_is_told_in_one_sentence(
    overrides: list[str], prepared_folder: Path, tmp_path: Path, harm: Callable[[Path], object], said: str
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(prepared_folder, folder)
    harm(folder)
    with pytest.raises(SystemExit) as caught:
        main([*overrides, "data=prepared", f"data.folder={folder}", "data.held_out=0"])
    assert str(caught.value.code).startswith("stages.train: ") and said in str(caught.value.code)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def _replace(folder: Path, old: str, new: str) -> None:
    path = folder / "manifest.jsonl"
    path.write_text(path.read_text().replace(old, new))


def test_settings_of_prepared_clips(settings: Build, prepared: Build) -> None:
    with pytest.raises(ValueError, match="data.folder empty"):
        settings("data=prepared")
    with pytest.raises(ValueError, match="data.held_out is -1"):
        prepared("data.held_out=-1")
    with pytest.raises(ValueError, match="sample_every is set and data.held_out 0"):
        prepared("sample_every=5")


def test_a_folder_that_grew_does_not_change_a_run_silently(prepared: Build) -> None:
    run(prepared("max_steps=1", "data.held_out=2"))
    with pytest.raises(ValueError, match="has 16 clips to train on, and the run in .* began with 14"):
        run(prepared("max_steps=2"))
    assert run(prepared("max_steps=2", "data.num_scenes=16")).step == 2


def test_a_run_keeps_the_plans_of_its_clips(prepared: Build, prepared_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(prepared_folder, tmp_path / "folder")
    run(prepared("max_steps=1", f"data.folder={folder}"))
    path = tmp_path / "run" / "begun_with.json"
    values = json.loads(path.read_text())
    assert values.pop("set of plans of 16 clips")
    path.write_text(json.dumps(values))  # as of a run of an older release
    assert run(prepared("max_steps=2", f"data.folder={folder}")).step == 2
    for shard in folder.glob("*.tar"):
        clips = list(read_shard(shard))
        write_shard(shard, [replace(c, plan=replace(c.plan, motion_prompt="it stays")) for c in clips])
    with pytest.raises(ValueError, match="another set of plans of 16 clips"):
        run(prepared("max_steps=3", f"data.folder={folder}"))


def test_a_run_keeps_its_clips_wherever_they_lie(prepared: Build, prepared_folder: Path, tmp_path: Path) -> None:
    run(prepared("max_steps=1"))
    folder = shutil.copytree(prepared_folder, tmp_path / "moved")
    assert run(prepared("max_steps=2", f"data.folder={folder}")).step == 2
    assert {"autoencoder", "set of 16 clips"} < set(json.loads((tmp_path / "run" / "begun_with.json").read_text()))
    _replace(folder, '"caption": "a red', '"caption": "a green')
    with pytest.raises(ValueError, match="another set of 16 clips"):
        run(prepared("max_steps=3", f"data.folder={folder}"))
