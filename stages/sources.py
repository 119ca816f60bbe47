"""Where a run's clips come from: the synthetic world's latent cache, or a folder of prepared clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray

from stages.cache import cache_folder, fill_cache, variant_key
from stages.checkpoint import list_checkpoints
from stages.latent_cache import CachedClips, LatentCache
from stages.prepared import PreparedClips
from stages.same_run import expect_begun_with
from stages.settings import Settings
from ttm.objects import PromptPlan


class Clips(Protocol):
    """Clips with their latents, any of them by its number."""

    plans: list[PromptPlan]
    shapes: list[tuple[int, int, int]]  # the (T, H, W) there are
    text_folder: Path  # where embedded texts may be kept

    def __len__(self) -> int: ...

    def order(self, seed: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which clip each global sample index takes."""

    def rows(self, scenes: Sequence[int] | NDArray[np.int64], variants: NDArray[np.int64] | None = None) -> CachedClips:
        """Some clips of one shape; see :meth:`stages.latent_cache.LatentCache.rows`."""


def open_clips(
    settings: Settings, accelerator: Accelerator, vae: Any, token_patch: Sequence[int], carried: bool = False
) -> Clips:
    """The clips that a run trains on; latents that are missing and asked for are made first.

    Args:
        vae: the frozen autoencoder, on the device to encode on.
        token_patch: latent frames, rows and columns of a token of the host.
        carried: whether the host sees the first frame carried along the masks.

    Raises:
        ValueError: too few clips, damaged ones, such as neither autoencoder nor host can take, or others than the run
            in the output folder was begun with.
        FileNotFoundError: no manifest where prepared clips should be.
    """
    stage, data = settings.stage, settings.data
    variants = data.corrupted_variants if stage.name == "motion_to_video" and stage.corrupted else 0
    known = clips_of_checkpoint(Path(settings.output_dir))
    if data.name == "prepared":
        clips = PreparedClips(settings, vae, token_patch, variants, carried)
        if known is not None and len(clips) not in (known, data.num_scenes):
            raise ValueError(
                f"{data.folder} has {len(clips)} clips to train on, and the run in {settings.output_dir} began with"
                f" {known}; expected as many, another output_dir, or data.num_scenes={len(clips)} to go on with these."
            )
        if accelerator.is_main_process:  # as many clips, but others, are no growth
            begun_with = {
                f"set of {len(clips)} clips": clips.clips_digest(),
                f"set of plans of {len(clips)} clips": clips.plans_digest(),
            }
            expect_begun_with(settings, begun_with)
        return clips
    with accelerator.main_process_first():
        folder = cache_folder(data, vae)
    if data.encode_scenes:
        worker = (accelerator.process_index, accelerator.num_processes)
        fill_cache(settings, folder, vae, data.encode_scenes, worker, lambda line: print(line, flush=True), carried)
        accelerator.wait_for_everyone()

    def opened(num_scenes: int | None) -> LatentCache:
        return LatentCache(folder, num_scenes, variant_key(data), variants, settings.motion.name, carried)

    # Another program may fill the cache meanwhile: the main process counts, and the others open as many.
    cache = opened(data.num_scenes or known) if accelerator.is_main_process else None
    count = [None if cache is None else len(cache)]
    broadcast_object_list(count)
    return opened(count[0]) if cache is None else cache


def clips_of_checkpoint(output: Path) -> int | None:
    """How many clips the last checkpoint was trained on, so that a cache that grew meanwhile changes nothing."""
    found = list_checkpoints(output / "checkpoints")
    if not found:
        return None
    return int(json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))["num_scenes"])
