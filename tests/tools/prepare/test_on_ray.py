"""The same preparation on Ray: the same bytes, and the same again when a worker is killed. One Ray for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("ray") is None:  # not imported here: it is told to stay on this machine before it is
    pytest.skip("Ray is not installed", allow_module_level=True)

from tools.prepare import on_ray
from tools.prepare.draft import Draft, Stopped, from_row
from tools.prepare.flow import CannotGoOn, Job, prepare
from tools.prepare.on_ray import OnRay, ray_session
from tools.prepare.settings import ClipSettings, ModelSettings
from tools.prepare.work import read_rejects
from ttm.data.clip_manifest import MANIFEST, REJECTS
from ttm.data.prepared_clips import read_clips

NONE = ModelSettings()


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with ray_session(address="local", num_cpus=2, store_megabytes=128):
        yield


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


@pytest.fixture
def videos(tmp_path: Path, add_video: Callable[..., Path]) -> Path:
    for seed in range(4):
        add_video(tmp_path / f"videos/{seed}.mp4", 10 + 5 * seed, seed)
    (tmp_path / "videos/bad.mp4").write_bytes(b"no video")
    add_video(tmp_path / "videos/nameless.mp4", 10, masks=False)
    return tmp_path / "videos"


class Deadly:
    """Kills its own process once, in the middle of a clip; then does its work."""

    def __init__(self, marker: Path, times: int, clip: str = "") -> None:
        self.marker, self.times, self.clip = marker, times, clip

    def __call__(self, draft: Draft) -> Draft:
        import os
        import signal

        died = self.marker.stat().st_size if self.marker.exists() else 0
        if died < self.times and draft.window.clip_id.startswith(self.clip):
            with open(self.marker, "ab") as stream:
                stream.write(b".")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.models(draft)

    def models(self, draft: Draft) -> Draft:
        from tools.prepare.models import Models

        return Models(ClipSettings(), NONE)(draft)


class DeadlyRay(OnRay):
    """Ray with a deadly step in the place of the models, as tasks or as actors."""

    def __init__(self, deadly: Deadly) -> None:
        super().__init__()
        self.deadly = deadly

    def models_of(self, job: Job) -> Callable[[Draft], Draft]:
        return self.deadly


def test_workers_may_die(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    """Three runs of one Ray: none is killed; one worker is, once; one clip kills every worker that takes it up."""
    counts = prepare(videos, tmp_path / "whole", small_clips, NONE, say=lambda line: None)
    assert prepare(videos, tmp_path / "ray", small_clips, NONE, OnRay(), lambda line: None) == counts == (14, 3)
    assert results(tmp_path / "ray") == results(tmp_path / "whole")
    once = DeadlyRay(Deadly(tmp_path / "once", 1))
    assert prepare(videos, tmp_path / "killed", small_clips, NONE, once, lambda line: None) == counts
    assert (tmp_path / "once").stat().st_size == 1
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    always = DeadlyRay(Deadly(tmp_path / "always", 100, "3-"))
    left = prepare(videos, tmp_path / "poisoned", replace(small_clips, max_clips=1), NONE, always, lambda line: None)
    assert left == (3, 3)
    told = {row["source"]: row["reason"] for row in read_rejects(tmp_path / "poisoned")}
    assert "2 workers died" in told["3.mp4"] and (tmp_path / "always").stat().st_size == 2


def test_actors_hold_the_models(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    """Clips travel between processes; a model that can't be loaded is one error."""
    models = ModelSettings(vae="ttm-tiny", device="cpu")
    clips = replace(small_clips, max_clips=1)
    counts = prepare(videos, tmp_path / "whole", clips, models, say=lambda line: None)
    assert prepare(videos, tmp_path / "ray", clips, models, OnRay(), lambda line: None) == counts == (4, 2)
    for name in (MANIFEST, REJECTS):  # latents may differ in their last bits, by the number of threads
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for one, other in zip(read_clips(tmp_path / "ray"), read_clips(tmp_path / "whole"), strict=True):
        assert one.latents is not None and other.latents is not None
        np.testing.assert_allclose(one.latents["video"], other.latents["video"], atol=1e-2)
    broken = ModelSettings(segmenter=str(tmp_path / "missing"), device="cpu")
    worker = on_ray.ModelWorker(Job(videos, tmp_path / "none", clips, broken))  # as an actor makes it
    told = from_row(worker({}))
    assert isinstance(told, Stopped) and "missing" in told.reason


def test_a_full_disk_on_a_worker_ends_the_run(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    out = tmp_path / "out"
    (out / "work/records").mkdir(parents=True)
    (out / "work/records/shard-00000").write_bytes(b"in the way")  # mkdir fails on the worker, as on a broken disk
    with pytest.raises(CannotGoOn, match="same command goes on"):
        prepare(videos, out, small_clips, NONE, OnRay(), lambda line: None)
    (out / "work/records/shard-00000").unlink()
    assert prepare(videos, out, small_clips, NONE, OnRay(), lambda line: None) == (14, 3)


def test_ray_is_this_machine_alone() -> None:
    import ray

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    assert ray.cluster_resources()["object_store_memory"] == 128 << 20
    assert on_ray.OnRay().model_workers >= 1
