"""Clips of a world, encoded once: what both stages train on.

Letters: B batch, L most objects a clip, Z latent channels, t h w latent frames, rows, columns, T H W of the pixels.

On disk (``<cache_dir>/<world>-<key>/``), ``data.shard_size`` scenes a shard:
    cache.json                     what the key was made of, for people
    shard-00000.safetensors        video, motion: float16 [n, Z, t, h, w], normalised latents of the clip and of its
                                   palette clip; coverage: float16 [n, L, t, h, w], each object's share of a latent
                                   cell (exact: a cell has at most 2,048 pixels); ids: zlib-packed uint8 [T, H, W]
    shard-00000.json               the plans
    shard-00000.spoiled-0-<key>.safetensors    motion and coverage of a corrupted variant
    shard-00000.optical_flow.safetensors       motion in another representation than masks
    shard-00000.carried.safetensors            carried: float16 [n, Z, t, h, w], latents of the first frame carried
                                               along the masks; for a variant's masks beside the variant
A shard is there when its safetensors file is: that one is renamed into place last. E(x0) and E(s0) are the first
latent frames of video and motion, since a video autoencoder is causal and encodes frame 0 alone.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from stages.draws import clip_order
from stages.whole_files import read_tensors
from ttm.motion.representation import motion_representation
from ttm.objects import PromptPlan


@dataclass(frozen=True)
class CachedClips:
    """A batch: video, motion float32 [B, Z, t, h, w]; coverage float32 [B, L, t, h, w]; plans of length B; the
    first-frame masks' E(s0) [B, Z, 1, h, w] where they are not the first of ``motion``; the first frame carried along
    the masks, [B, Z, t, h, w], where it is asked for."""

    video: Tensor
    motion: Tensor
    coverage: Tensor
    plans: list[PromptPlan]
    first_masks: Tensor | None = None
    carried: Tensor | None = None


def shard_path(folder: Path, number: int) -> Path:
    """Where shard ``number`` lies."""
    return folder / f"shard-{number:05d}.safetensors"


def variant_path(folder: Path, number: int, variant: int, key: str) -> Path:
    """Where a corrupted variant of a shard lies."""
    return folder / f"shard-{number:05d}.spoiled-{variant}-{key}.safetensors"


def pictures_path(folder: Path, number: int, motion: str) -> Path:
    """Where a shard's motion lies in another representation than masks."""
    return folder / f"shard-{number:05d}.{motion}.safetensors"


def carried_path(trajectories: Path) -> Path:
    """Where the first frames lie that are carried along the masks of a shard, or of a corrupted variant."""
    return trajectories.with_suffix(".carried.safetensors")


class LatentCache:
    """The whole shards of a folder, in memory (mapped from the files, read when used).

    Args:
        folder: the cache.
        num_scenes: how many scenes to use; None = all of the shards 0, 1, … up to the first that is missing.
        variant_key: key of the corrupted variants, or None without.
        num_variants: how many each shard must have.
        motion: the representation that ``motion`` of a batch is in.
        carried: whether a batch holds the first frame carried along the masks.

    Raises:
        ValueError: fewer scenes than asked for, or a damaged shard.
    """

    def __init__(
        self,
        folder: Path,
        num_scenes: int | None = None,
        variant_key: str | None = None,
        num_variants: int = 0,
        motion: str = "masks",
        carried: bool = False,
    ) -> None:
        self.folder, self._shows_masks = folder, motion_representation(motion).shows_masks
        self._carries = carried
        self._pictures: list[dict[str, Tensor]] = []
        self._shards: list[dict[str, Tensor]] = []
        self._variants: list[list[dict[str, Tensor]]] = []
        self.plans: list[PromptPlan] = []
        while shard_path(folder, len(self._shards)).exists():
            if num_scenes is not None and len(self.plans) >= num_scenes:
                break
            number = len(self._shards)
            shard, plans = read_shard(folder, number)
            shard = self._with_carried(shard, shard_path(folder, number))
            self._shards.append(shard)
            own = shard if self._shows_masks else self._beside(pictures_path(folder, number, motion), motion)
            self._pictures.append(own)
            self.plans += plans
            self._variants.append([self._variant(number, v, variant_key) for v in range(num_variants)])
        available = len(self.plans)
        if available < (num_scenes or 1):
            raise ValueError(
                f"{folder} holds {available} encoded scenes; expected {num_scenes or 'at least 1'}."
                " Fill it with data.encode_scenes=N, or with python -m stages.cache."
            )
        self.text_folder, self.shapes = folder, [_clip_shape(self._shards[0])]
        self._starts = np.cumsum([0] + [len(shard["video"]) for shard in self._shards])
        self.plans = self.plans[:num_scenes]

    def _variant(self, number: int, variant: int, key: str | None) -> dict[str, Tensor]:
        assert key is not None
        path = variant_path(self.folder, number, variant, key)
        return self._with_carried(self._beside(path, f"corrupted variant {variant}"), path)

    def _with_carried(self, trajectories: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
        if not self._carries:
            return trajectories
        return trajectories | self._beside(carried_path(path), "first frames carried along the masks")

    def _beside(self, path: Path, what: str) -> dict[str, Tensor]:
        """What a shard has beside itself: a corrupted variant, or the motion in another representation."""
        if not path.exists():
            raise ValueError(
                f"{path} does not exist; expected {what} of this shard."
                " Write it with the same settings through python -m stages.cache."
            )
        return read_tensors(path, "remove it and fill the cache again.")

    def __len__(self) -> int:
        return len(self.plans)

    def order(self, seed: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which scene each global sample index takes."""
        return clip_order(seed, indices, len(self))

    def _place(self, scene: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._starts, scene, side="right")) - 1
        return shard, scene - int(self._starts[shard])

    def rows(self, scenes: Sequence[int] | NDArray[np.int64], variants: NDArray[np.int64] | None = None) -> CachedClips:
        """Read B scenes.

        Args:
            scenes: their numbers, 0..len - 1.
            variants: which corrupted variant gives motion and coverage, [B]; -1 = the true ones; None = all true.
        """
        video, motion, coverage, plans, first, carried = [], [], [], [], [], []
        for place, scene in enumerate(int(scene) for scene in scenes):
            shard, row = self._place(scene)
            chosen = -1 if variants is None else int(variants[place])
            trajectory = self._shards[shard] if chosen < 0 else self._variants[shard][chosen]
            pictures = self._pictures[shard] if chosen < 0 else trajectory
            video.append(self._shards[shard]["video"][row])
            motion.append(pictures["motion"][row])
            first.append(trajectory["motion"][row][:, :1])
            coverage.append(trajectory["coverage"][row])
            if self._carries:
                carried.append(trajectory["carried"][row])
            plans.append(self.plans[scene])
        return CachedClips(
            torch.stack(video).float(),
            torch.stack(motion).float(),
            torch.stack(coverage).float(),
            plans,
            None if self._shows_masks else torch.stack(first).float(),
            torch.stack(carried).float() if self._carries else None,
        )

    def ids(self, scene: int) -> NDArray[np.uint8]:
        """The exact trajectory of one scene, uint8 [T, H, W]."""
        shard, row = self._place(scene)
        tensors = self._shards[shard]
        begin, end = (int(value) for value in tensors["ids_offsets"][row : row + 2])
        flat = np.frombuffer(zlib.decompress(tensors["ids"][begin:end].numpy().tobytes()), np.uint8)
        return flat.reshape(_clip_shape(tensors))


def _clip_shape(shard: dict[str, Tensor]) -> tuple[int, int, int]:
    """(T, H, W) of a shard's clips."""
    frames, height, width = (int(size) for size in shard["ids_shape"])
    return frames, height, width


def read_shard(folder: Path, number: int) -> tuple[dict[str, Tensor], list[PromptPlan]]:
    """Read one shard and its plans.

    Raises:
        ValueError: one of the two files is missing or damaged, or they differ in length.
    """
    path = shard_path(folder, number)
    advice = "remove it and fill the cache again."
    tensors = read_tensors(path, advice)
    try:
        values = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        plans = [PromptPlan.from_dict(value) for value in values]
    except (OSError, ValueError) as error:
        raise ValueError(f"The plans of {path} can't be read ({error}); {advice}") from error
    if {"video", "motion", "coverage", "ids"} - set(tensors) or len(tensors["video"]) != len(plans):
        raise ValueError(f"{path} and its plans don't belong together; {advice}")
    return tensors, plans


def pack_ids(ids: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
    """Trajectories of one shape as three tensors (zlib: about 3 KB instead of 280 a clip)."""
    packed = [zlib.compress(np.ascontiguousarray(item).tobytes(), 6) for item in ids]
    offsets = np.cumsum([0] + [len(item) for item in packed])
    return {
        "ids": torch.from_numpy(np.frombuffer(b"".join(packed), np.uint8).copy()),
        "ids_offsets": torch.from_numpy(offsets.astype(np.int64)),
        "ids_shape": torch.tensor(ids[0].shape),
    }


def frames_to_tensor(clips: Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 clips [T, H, W, 3] as one float32 batch [B, 3, T, H, W] in -1..1."""
    batch = torch.from_numpy(np.stack(clips))
    return rearrange(batch, "b t h w c -> b c t h w").float() / 127.5 - 1
