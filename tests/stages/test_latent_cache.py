from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.cache import ShardWriter, build_world, cache_folder, fast_encoder, fill_cache, main, variant_key
from stages.host import load_vae, module_digest
from stages.latent_cache import LatentCache, frames_to_tensor, shard_path
from stages.settings import Settings
from stages.sources import open_clips
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.motion.token_grid import object_coverage
from ttm.pipelines.autoencoders import LatentFormat, encode_video

Build = Callable[..., Settings]


@pytest.fixture
def filled(settings: Build) -> tuple[Settings, Path]:
    made = settings()
    vae = load_vae(made.host.pipeline)
    folder = cache_folder(made.data, vae)
    fill_cache(made, folder, vae, 8, say=lambda line: None)
    return made, folder


def test_rows_are_what_the_pipelines_would_encode(filled: tuple[Settings, Path]) -> None:
    made, folder = filled
    cache, world, vae = LatentCache(folder), build_world(made.data), load_vae(made.host.pipeline)
    assert len(cache) == 8
    numbers = [6, 1, 3]
    rows = cache.rows(numbers)
    for place, number in enumerate(numbers):
        scene = world[number]
        assert rows.plans[place] == scene.plan
        np.testing.assert_array_equal(cache.ids(number), scene.ids)
        with torch.no_grad():
            video, motion, x0, s0 = (
                encode_video(vae, frames_to_tensor([clip]))[0]
                for clip in (
                    scene.frames,
                    MaskTrajectory(scene.ids).to_video(),
                    scene.frames[:1],
                    MaskTrajectory(scene.ids).to_video()[:1],
                )
            )
        close = {"rtol": 2e-3, "atol": 2e-3}  # float16
        torch.testing.assert_close(rows.video[place], video, **close)
        torch.testing.assert_close(rows.motion[place], motion, **close)
        # What lets the cache do without latents of single frames: the autoencoder is causal.
        torch.testing.assert_close(rows.video[place][:, :1], x0, **close)
        torch.testing.assert_close(rows.motion[place][:, :1], s0, **close)
        exact = object_coverage(torch.from_numpy(scene.ids[None]), 2, (2, 4, 4))[0]
        assert torch.equal(rows.coverage[place], exact)


def test_filling_goes_on_where_it_stopped_and_mends(settings: Build, tmp_path: Path) -> None:
    made = settings(f"data.cache_dir={tmp_path / 'cache'}")
    vae = load_vae(made.host.pipeline)
    folder = cache_folder(made.data, vae)
    said: list[str] = []
    fill_cache(made, folder, vae, 12, worker=(1, 2), say=said.append)  # shard 1 of 0, 1, 2
    assert len(said) == 1 and shard_path(folder, 1).exists() and not shard_path(folder, 0).exists()
    with pytest.raises(ValueError, match="holds 0 encoded scenes; expected at least 1.*encode_scenes"):
        LatentCache(folder)
    kept = shard_path(folder, 1).read_bytes()
    fill_cache(made, folder, vae, 12, say=said.append)
    assert len(said) == 3 and shard_path(folder, 1).read_bytes() == kept
    fill_cache(made, folder, vae, 12, say=said.append)
    assert len(said) == 3
    assert len(LatentCache(folder)) == 12 and len(LatentCache(folder, 5)) == 5
    with pytest.raises(ValueError, match="holds 12 encoded scenes; expected 13"):
        LatentCache(folder, 13)
    shard_path(folder, 1).write_bytes(kept[: len(kept) // 2])
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors can't be read.*remove it and fill"):
        LatentCache(folder)
    fill_cache(made, folder, vae, 12, say=said.append)
    assert len(said) == 4 and shard_path(folder, 1).read_bytes() == kept


def test_every_process_opens_as_many_scenes_as_the_main_one(
    settings: Build, filled: tuple[Settings, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings("data.encode_scenes=0")

    class Second:
        """A process that comes to the cache when another program has filled it further."""

        process_index, num_processes, is_main_process = 1, 2, False
        main_process_first = staticmethod(contextlib.nullcontext)

    monkeypatch.setattr("stages.sources.broadcast_object_list", lambda values: values.__setitem__(0, 4))
    assert len(open_clips(made, Second(), load_vae(made.host.pipeline), (1, 2, 2))) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["missing", "no json", "shorter"])
def test_plans_that_do_not_fit_their_shard(filled: tuple[Settings, Path], tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(filled[1], folder)
    plans = shard_path(folder, 0).with_suffix(".json")
    if damage == "missing":
        plans.unlink()
    else:
        plans.write_text("{" if damage == "no json" else "[]")
    with pytest.raises(ValueError, match="shard-00000.*remove it and fill the cache again"):
        LatentCache(folder)


def test_another_world_or_autoencoder_is_another_folder(settings: Build, tmp_path: Path) -> None:
    place = f"data.cache_dir={tmp_path}"
    made, vae = settings(place), load_vae(settings().host.pipeline)
    folder = cache_folder(made.data, vae)
    assert folder == cache_folder(settings(place, "data.encode_scenes=99", "seed=5").data, vae)
    assert folder != cache_folder(settings(place, "data.seed=1").data, vae)
    assert folder != cache_folder(settings(place, "data.appearance=0.0").data, vae)
    before = module_digest(vae)
    next(vae.decoder.parameters()).data[0] += 1
    assert module_digest(vae) != before
    assert folder == cache_folder(made.data, vae), "the decoder does not decide the latents"
    before = module_digest(vae)
    next(vae.encoder.parameters()).data[0] += 1
    assert module_digest(vae) != before
    assert folder != cache_folder(made.data, vae)


def test_corrupted_variants_lie_beside_and_move_masks_alone(settings: Build, tmp_path: Path) -> None:
    made = settings(f"data.cache_dir={tmp_path}", "data.corrupted_variants=2")
    vae = load_vae(made.host.pipeline)
    folder = cache_folder(made.data, vae)
    fill_cache(settings(f"data.cache_dir={tmp_path}"), folder, vae, 4, say=lambda line: None)
    with pytest.raises(ValueError, match="corrupted variant 0"):
        LatentCache(folder, variant_key=variant_key(made.data), num_variants=2)
    before = shard_path(folder, 0).stat().st_mtime_ns
    assert ShardWriter(folder, made.data, vae, "no").missing(0)
    fill_cache(made, folder, vae, 4, say=lambda line: None)
    assert shard_path(folder, 0).stat().st_mtime_ns == before
    cache = LatentCache(folder, variant_key=variant_key(made.data), num_variants=2)
    true, first, second = (cache.rows([2], np.array([variant])) for variant in (-1, 0, 1))
    assert torch.equal(true.video, first.video)
    assert not torch.equal(true.motion, first.motion) and not torch.equal(true.coverage, first.coverage)
    assert not torch.equal(first.coverage, second.coverage)


def test_only_the_files_that_are_missing_are_encoded(settings: Build, tmp_path: Path) -> None:
    made = settings(f"data.cache_dir={tmp_path}", "data.corrupted_variants=2", "motion=optical_flow")
    vae = load_vae(made.host.pipeline)
    folder = cache_folder(made.data, vae)
    fill_cache(made, folder, vae, 4, say=lambda line: None)
    files = {path: path.read_bytes() for path in folder.glob("shard-*.safetensors")}
    assert len(files) == 4
    for harmed in files:
        written = {path: path.stat().st_mtime_ns for path in files}
        harmed.write_bytes(files[harmed][:100])
        fill_cache(made, folder, vae, 4, say=lambda line: None)
        assert [path for path in files if path.stat().st_mtime_ns != written[path]] == [harmed]
        assert harmed.read_bytes() == files[harmed]


def test_bf16_encoder_is_near_the_exact_one(settings: Build) -> None:
    made = settings()
    clips = [build_world(made.data)[number].frames for number in range(2)]
    exact = ShardWriter(Path(), made.data, load_vae(made.host.pipeline), "no")._encode(clips).float()
    rough = ShardWriter(Path(), made.data, load_vae(made.host.pipeline), "bf16")._encode(clips).float()
    assert (exact - rough).square().mean() < 0.03**2 * exact.square().mean()


@pytest.mark.parametrize("worker", ["2/2", "x", "1"])
def test_a_worker_that_can_not_be_read(worker: str) -> None:
    with pytest.raises(SystemExit, match="expected RANK/COUNT"):
        main(["--worker", worker])


def test_command_line_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no folder 'vae'"):
        main([f"host.pipeline={tmp_path}", "data.encode_scenes=8"])
    with pytest.raises(SystemExit, match="encode_scenes is 0"):
        main([])


def test_a_fast_encoder_normalises_with_the_very_numbers_that_sampling_does(ltx_autoencoder: Callable) -> None:
    vae = ltx_autoencoder()
    before = LatentFormat.of(vae)
    fast = fast_encoder(vae)
    assert fast.dtype == torch.bfloat16 and LatentFormat.of(fast) == before
    latents = encode_video(fast, torch.rand(1, 3, 5, 32, 32) * 2 - 1)
    assert latents.dtype == torch.float32 and torch.isfinite(latents).all()
