"""Prepared clips (ttm/data/prepared_clips.py) as a source of training: any clip of any shard, by its number.

Letters: B batch, L most objects a clip, Z latent channels, t h w the latent grid, T H W of the pixels.

A shard is a plain tar archive: where each file begins is found once, by its headers alone, and a clip is then read from
there, so that shuffling needs no stream and no buffer. The folder has to be on a file system (local or shared).
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.buckets import BucketOrder
from stages.corruption import corrupt_ids
from stages.draws import sample_rng
from stages.host import encoder_digest
from stages.latent_cache import CachedClips, frames_to_tensor
from stages.settings import Settings
from ttm.data.clip_manifest import ClipFolderManifest, ClipRow
from ttm.data.prepared_clips import MEMBERS, PreparedClip, clip_from_members
from ttm.motion.carried_frame import carry_first_frame
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.motion.token_grid import object_coverage
from ttm.objects import PromptPlan
from ttm.pipelines.autoencoders import LatentFormat, decode_latents, encode_video, latent_shape
from ttm.pipelines.inputs import to_uint8


def split_clips(manifest: ClipFolderManifest, held_out: int) -> tuple[list[ClipRow], list[ClipRow]]:
    """The clips to train on and those to look at, both sorted by shape and id.

    Whole videos are held out: a clip beside one that was trained on would flatter. Which, is decided by a hash of the
    video's name, and of the clip's id, not by their places or what else is in the folder; what is left of the last
    video is neither trained on nor looked at.

    Raises:
        ValueError: nothing would be left to train on.
    """
    by_hash = sorted(manifest.rows, key=lambda row: (_hash(row.source), row.source, _hash(row.clip_id)))
    held = by_hash[:held_out]
    sources = {row.source for row in held}
    train = [row for row in by_hash if row.source not in sources]
    if not train:
        raise ValueError(
            f"data.held_out is {held_out} and there are {len(manifest)} clips of"
            f" {len({row.source for row in manifest.rows})} videos; expected some videos to train on."
        )
    return tuple(sorted(rows, key=lambda row: (row.shape, row.clip_id)) for rows in (train, held))  # type: ignore[return-value]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class ShardIndex:
    """Where in a folder's shards the files of some clips lie.

    Args:
        folder: of the shards.
        rows: the clips.

    Raises:
        ValueError: a shard is damaged, or lacks a clip.
        FileNotFoundError: a shard is missing.
    """

    def __init__(self, folder: Path, rows: Sequence[ClipRow]) -> None:
        self.folder = folder
        self._places: dict[str, dict[str, tuple[str, int, int]]] = {row.clip_id: {} for row in rows}
        for shard in sorted({row.shard for row in rows}):
            try:
                with tarfile.open(folder / shard, "r:") as archive:
                    for entry in archive:
                        clip, _, suffix = entry.name.partition(".")
                        if clip in self._places and entry.isreg():
                            self._places[clip][suffix] = (shard, entry.offset_data, entry.size)
            except tarfile.TarError as error:
                raise ValueError(f"{folder / shard} is damaged ({error}); remove it and prepare it again.") from error
        for row in rows:
            if "json" not in self._places[row.clip_id]:
                raise ValueError(f"{folder / row.shard} lacks clip {row.clip_id} of the manifest; prepare it again.")

    def read(self, row: ClipRow, members: Sequence[str] = MEMBERS) -> PreparedClip:
        """One clip, with those of its files that are asked for.

        Raises:
            ValueError: it is damaged.
        """
        found = {}
        for suffix in {"json", "trajectory.npz", *members} & self._places[row.clip_id].keys():
            shard, offset, size = self._places[row.clip_id][suffix]
            with open(self.folder / shard, "rb") as file:
                file.seek(offset)
                found[suffix] = file.read(size)
        return clip_from_members(found, f"Clip {row.clip_id} of {self.folder / row.shard}")


class PreparedClips:
    """The clips of ``data.folder`` that are trained on; it is read like a :class:`~stages.latent_cache.LatentCache`.

    A batch holds clips of one size and length. Latents come from the shards; those of a clip that was prepared
    without, of a corrupted trajectory and of a carried first frame are made when they are read, by the autoencoder that
    is then kept. A clip without its video has the first frame that the autoencoder makes of its latents.

    Args:
        settings: of the run.
        vae: the frozen autoencoder, on the device to encode on.
        token_patch: latent frames, rows and columns of a token.
        variants: how many corrupted variants a trajectory has.
        carried: whether a batch holds the first frame carried along the masks.

    Raises:
        FileNotFoundError: no manifest, or a shard is missing.
        ValueError: a damaged folder; latents of another autoencoder; a size that the autoencoder and the host don't
            divide; a clip with neither latents nor video.
    """

    def __init__(
        self, settings: Settings, vae: Any, token_patch: Sequence[int], variants: int = 0, carried: bool = False
    ) -> None:
        data = settings.data
        self.folder, self.corruption, self.data_seed = Path(data.folder), data.corruption, data.seed
        rows, _ = split_clips(ClipFolderManifest.load(self.folder), data.held_out)
        self.latent_shapes = _latent_shapes(rows, vae, token_patch)
        self.digest = encoder_digest(vae)
        _check_latents(rows, self.digest, data.folder)
        self.rows_of = rows
        self.index = ShardIndex(self.folder, rows)
        self.plans: list[PromptPlan] = [self.index.read(row, ()).plan for row in rows]
        self.most_objects = max(1, *(row.objects for row in rows)) if rows else 1
        self.carries = carried
        needed = carried or variants > 0 or any(row.encoder is None for row in rows)
        self.vae = vae if needed else None
        self.batch_size = settings.batch_size
        shapes = [row.shape for row in rows]
        self.shapes = sorted(set(shapes))
        self._starts = [shapes.index(shape) for shape in self.shapes]  # the first clip of each bucket
        self._order = BucketOrder([shapes.count(shape) for shape in self.shapes], settings.batch_size, settings.seed)
        self.text_folder = Path(data.cache_dir) / "texts"

    def __len__(self) -> int:
        return len(self.plans)

    def clips_digest(self) -> str:
        """A hash of what the clips are and show, wherever the folder lies."""
        known = [(row.clip_id, row.caption, row.frame_digest, row.trajectory_digest) for row in self.rows_of]
        return hashlib.sha256(str(known).encode()).hexdigest()[:12]

    def plans_digest(self) -> str:
        """A hash of the plans of the clips: who moves, and how, in words that may be corrected under one caption."""
        return hashlib.sha256(str([plan.to_dict() for plan in self.plans]).encode()).hexdigest()[:12]

    def order(self, seed: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which clip each global sample index takes; those of one step are of one bucket."""
        assert seed == self._order.seed
        clips = []
        for index in indices:
            bucket, batch = self._order.batch(int(index) // self.batch_size)
            clips.append(self._starts[bucket] + batch[int(index) % self.batch_size])
        return np.array(clips, np.int64)

    def rows(self, scenes: Sequence[int] | NDArray[np.int64], variants: NDArray[np.int64] | None = None) -> CachedClips:
        """Read B clips of one bucket; as :meth:`stages.latent_cache.LatentCache.rows`."""
        chosen = [-1] * len(scenes) if variants is None else [int(variant) for variant in variants]
        read = [self._clip(int(clip), variant) for clip, variant in zip(scenes, chosen, strict=True)]
        video, motion, coverage, *carried = (torch.stack(tensors).float() for tensors in zip(*read, strict=True))
        plans = [self.plans[int(clip)] for clip in scenes]
        return CachedClips(video, motion, coverage, plans, carried=carried[0] if carried else None)

    def _clip(self, number: int, variant: int) -> tuple[Tensor, ...]:
        """Video and motion [Z, t, h, w] and coverage [L, t, h, w] of one clip; and, where it is asked for, the first
        frame carried along the masks [Z, t, h, w]."""
        row = self.rows_of[number]
        needed = {"latents.safetensors": row.encoder is not None, "mp4": row.encoder is None or self.carries}
        clip = self.index.read(row, [member for member, wanted in needed.items() if wanted])
        ids = clip.trajectory.ids
        if variant >= 0:
            ids = corrupt_ids(ids, self.corruption, sample_rng(self.data_seed + variant, number, "corruption"))
        stored = clip.latents or {}
        video = torch.from_numpy(stored["video"]) if stored else self._encode(clip.frames())
        own = stored and variant < 0
        motion = torch.from_numpy(stored["motion"]) if own else self._encode(MaskTrajectory(ids).to_video())
        shape = self.latent_shapes[row.shape]
        if not tuple(video.shape) == tuple(motion.shape) == shape:
            found = [list(video.shape), list(motion.shape)]
            raise ValueError(f"Latents of clip {row.clip_id} are {found}; expected {list(shape)}. Prepare it again.")
        coverage = object_coverage(torch.from_numpy(ids[None]), self.most_objects, shape[1:])[0]
        if not self.carries:
            return video, motion, coverage
        first = clip.frames()[0] if clip.video is not None else self._decode(video[:, :1])
        return video, motion, coverage, self._encode(carry_first_frame(first, ids))

    @torch.no_grad()
    def _encode(self, frames: NDArray[np.uint8]) -> Tensor:
        assert self.vae is not None
        return encode_video(self.vae, frames_to_tensor([frames]).to(self.vae.device))[0].half().cpu()

    @torch.no_grad()
    def _decode(self, first: Tensor) -> NDArray[np.uint8]:
        """The picture uint8 [H, W, 3] of latents [Z, 1, h, w]."""
        assert self.vae is not None
        return to_uint8(decode_latents(self.vae, first[None].float().to(self.vae.device)))[0]


def _latent_shapes(rows: Sequence[ClipRow], vae: Any, patch: Sequence[int]) -> dict[Any, tuple[int, int, int, int]]:
    """(Z, t, h, w) for each (T, H, W) among the clips."""
    form, shapes = LatentFormat.of(vae), {}
    for frames, height, width in sorted({row.shape for row in rows}):
        _, channels, t, h, w = latent_shape(vae, frames, height, width)
        divides = not ((frames - 1) % form.group or height % (form.space * patch[1]) or width % (form.space * patch[2]))
        if not divides or t % patch[0]:
            raise ValueError(
                f"There are clips of {frames} frames of {height} x {width}; expected 1 + {form.group} k frames and"
                f" sides that are multiples of {form.space * patch[1]} and {form.space * patch[2]}."
            )
        shapes[frames, height, width] = (channels, t, h, w)
    return shapes


def _check_latents(rows: Sequence[ClipRow], digest: str, folder: str) -> None:
    strange = sorted({str(row.encoder) for row in rows if row.encoder not in (None, digest)})
    if strange:
        raise ValueError(
            f"{folder} holds latents of the autoencoder {strange[0]}, and host.pipeline's is {digest}; expected the"
            " same: prepare the folder with this one."
        )
    blind = [row.clip_id for row in rows if row.encoder is None and not row.has_video]
    if blind:
        raise ValueError(f"Clip {blind[0]} of {folder} has neither latents nor video; expected one of them.")
