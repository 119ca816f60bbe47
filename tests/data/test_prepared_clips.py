"""The shards' format: what is written is what is read, by us and by WebDataset, and damage is always told."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("webdataset")

from ttm.data.clip_manifest import MANIFEST, ClipFolderManifest, ClipRow
from ttm.data.prepared_clips import PreparedClip, digest_of, read_clips, read_shard, write_shard
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan

ROOT = Path(__file__).parents[2]
PLAN = PromptPlan("Le ballon bouge.", "the ball moves left", (ObjectPrompt("ball", "the ball moves left"),))


def clip(name: str, seed: int = 0, latents: bool = True, video: bytes | None = None) -> PreparedClip:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 3, (5, 12, 16), np.uint8)
    arrays = {key: rng.normal(size=(4, 2, 3, 4)).astype(np.float16) for key in ("video", "motion")}
    return PreparedClip(
        name, f"sub/{name}.mp4", 1.25, "Le ballon bougé.", PLAN, MaskTrajectory(ids, 7.5), digest_of(ids),
        arrays if latents else None, "abc123" if latents else None, video,
    )  # fmt: skip


def assert_equal(one: PreparedClip, other: PreparedClip) -> None:
    assert replace(one, latents=None, encoder=None).__dict__ == replace(other, latents=None, encoder=None).__dict__
    assert one.encoder == other.encoder
    for name in one.latents or {}:
        np.testing.assert_array_equal(one.latents[name], other.latents[name])  # type: ignore[index]
        assert other.latents[name].dtype == np.float16  # type: ignore[index]


def fill(folder: Path, *shards: list[PreparedClip]) -> ClipFolderManifest:
    rows = []
    for number, clips in enumerate(shards):
        write_shard(folder / f"shard-{number:05d}.tar", clips)
        rows += [ClipRow.of(each, f"shard-{number:05d}.tar") for each in clips]
    manifest = ClipFolderManifest(tuple(rows))
    manifest.save(folder)
    return manifest


def test_a_folder_read_back_is_the_folder_written(tmp_path: Path) -> None:
    clips = [clip("b-1", 1), clip("a_0", 2, latents=False), clip("c", 3)]
    manifest = fill(tmp_path, clips[:2], clips[2:])
    assert ClipFolderManifest.load(tmp_path) == manifest
    assert [row.clip_id for row in manifest.rows] == ["a_0", "b-1", "c"]
    for one, other in zip(clips, [clips[0], clips[1], clips[2]], strict=True):
        assert_equal(one, other)
    read = list(read_clips(tmp_path))
    assert [each.clip_id for each in read] == ["b-1", "a_0", "c"]
    for one, other in zip(clips, read, strict=True):
        assert_equal(one, other)
    assert manifest.shapes() == {(5, 12, 16): list(manifest.rows)} and manifest.encoders == {"abc123", None}
    assert {row.trajectory_digest for row in manifest.rows} == {digest_of(each.trajectory.ids) for each in clips}


def test_the_same_clips_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, [clip("a"), clip("b", 1)])
    for file in ("shard-00000.tar", MANIFEST):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_webdataset_reads_it_as_any_other(tmp_path: Path) -> None:
    import webdataset

    fill(tmp_path, [clip("a"), clip("b", 1)])
    samples = list(webdataset.WebDataset(str(tmp_path / "shard-00000.tar"), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["a", "b"]
    assert samples[0]["json"]["plan"] == PLAN.to_dict() and samples[0]["json"]["fps"] == 7.5
    assert {key for key in samples[0] if not key.startswith("__")} == {"json", "trajectory.npz", "latents.safetensors"}


def test_members_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    fill(tmp_path, [clip("a", video=b"no video at all")])
    (bare,) = read_shard(tmp_path / "shard-00000.tar", ["latents.safetensors"])
    assert bare.latents is not None and bare.video is None
    (bare,) = read_shard(tmp_path / "shard-00000.tar", [])
    assert bare.latents is None and bare.encoder is None


def test_the_frames_come_back_as_far_as_compression_goes(tmp_path: Path) -> None:
    frames = np.repeat(np.arange(5, dtype=np.uint8)[:, None, None, None] * 40, 3, axis=3)
    frames = np.broadcast_to(frames, (5, 13, 17, 3)).copy()  # odd sides
    write_video(tmp_path / "x.mp4", frames, 8)
    moves = MaskTrajectory(np.ones((5, 13, 17), np.uint8), 8)
    whole = replace(clip("a", latents=False, video=(tmp_path / "x.mp4").read_bytes()), trajectory=moves)
    assert whole.frames().shape == frames.shape
    assert np.abs(whole.frames().astype(int) - frames).mean() < 3
    with pytest.raises(ValueError, match="without|no video"):
        clip("a").frames()


def test_a_fresh_process_reads_it(tmp_path: Path) -> None:
    fill(tmp_path, [clip("a")])
    code = f"""
import sys
from ttm.data.prepared_clips import digest_of, read_clips
(clip,) = read_clips({str(tmp_path)!r})
print(digest_of(clip.trajectory.ids), digest_of(clip.latents['video']), clip.caption)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    whole = clip("a")
    assert whole.latents is not None
    expected = f"{digest_of(whole.trajectory.ids)} {digest_of(whole.latents['video'])} {whole.caption}"
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize("name", ["", "A", "a b", "../a", "a.b", "ä"])
def test_ids_that_no_shard_can_hold(name: str) -> None:
    with pytest.raises(ValueError, match="a-z, 0-9"):
        clip(name)


def test_latents_of_another_form() -> None:
    whole = clip("a")
    assert whole.latents is not None
    for wrong in (
        {"video": whole.latents["video"]},
        {**whole.latents, "video": whole.latents["video"].astype(np.float32)},
        {**whole.latents, "other": whole.latents["video"]},
        {**whole.latents, "video": whole.latents["video"][0]},
    ):
        with pytest.raises(ValueError, match="latents"):
            replace(whole, latents=wrong)
    with pytest.raises(ValueError, match="both or neither"):
        replace(whole, encoder=None)


def test_every_truncation_is_told(tmp_path: Path) -> None:
    fill(tmp_path, [clip("a"), clip("b", 1), clip("c", 2)])
    path = tmp_path / "shard-00000.tar"
    whole = path.read_bytes()
    end = max(place for place, byte in enumerate(whole) if byte)
    for length in [*range(0, end, 512), *range(100, end, 1111)]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged|manifest says"):
            list(read_clips(tmp_path))


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../../evil.json": b"{}"}, "evil.*no clip.s"),
        ({"/tmp/evil.json": b"{}"}, "evil.*no clip.s"),
        ({"a.json": b"{}", "a.trajectory.npz": b""}, "its facts are"),
        ({"a.json": b"[", "a.trajectory.npz": b""}, "damaged"),
        ({"a.json": b"{}"}, "damaged"),
        ({"a.trajectory.npz": b"x"}, "'json' is missing"),
    ],
)
def test_other_archives_are_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_shard(archive(tmp_path / "x.tar", files)))


def test_facts_and_trajectory_have_to_agree(tmp_path: Path) -> None:
    from ttm.data.prepared_clips import clip_members

    members = clip_members(clip("a"))
    other = clip_members(replace(clip("a"), trajectory=MaskTrajectory(np.ones((4, 12, 16), np.uint8), 7.5)))
    files = {f"a.{name}": content for name, content in {**members, "json": other["json"]}.items()}
    with pytest.raises(ValueError, match="unlike its facts"):
        list(read_shard(archive(tmp_path / "x.tar", files)))


def test_a_failed_write_leaves_no_shard(tmp_path: Path) -> None:
    def clips():  # type: ignore[no-untyped-def]
        yield clip("a")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left.*writable folder"):
        write_shard(tmp_path / "shard-00000.tar", clips())
    assert list(tmp_path.iterdir()) == []


def test_manifests_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="tools.prepare"):
        ClipFolderManifest.load(tmp_path)
    row = ClipRow.of(clip("a"), "shard-00000.tar")
    with pytest.raises(ValueError, match="every id once"):
        ClipFolderManifest((row, replace(row, shard="shard-00001.tar")))
    ClipFolderManifest((row,)).save(tmp_path)
    good = json.loads((tmp_path / MANIFEST).read_text())
    for changes in ({"shard": "../x.tar"}, {"shard": "pipe:ls"}, {"more": 1}, {"width": ""}):
        (tmp_path / MANIFEST).write_text(json.dumps({**good, **changes}) + "\n")
        with pytest.raises(ValueError, match="Line 1"):
            ClipFolderManifest.load(tmp_path)
    (tmp_path / MANIFEST).write_text("")
    with pytest.raises(ValueError, match="no clip"):
        ClipFolderManifest.load(tmp_path)
