"""Clips prepared for training, in shards: the format, and reading and writing it.

Letters: T frames, H W pixels, Z latent channels, t h w latent frames, rows, columns.

A folder of prepared clips:
    shard-00000.tar, …     WebDataset: the members of one clip follow each other and share its id as their key
        ID.json                  what the clip is: ``clip_id``, ``source`` (its file, relative), ``start_seconds``,
                                 ``num_frames``, ``fps``, ``height``, ``width``, ``caption``, ``plan``, ``frame_digest``
        ID.latents.safetensors   optional: ``video`` and ``motion``, float16 [Z, t, h, w], the normalised latents of the
                                 clip and of its palette clip; in the metadata ``encoder``, the autoencoder's digest
        ID.mp4                   optional: the frames, compressed
        ID.trajectory.npz        the :class:`~ttm.motion.mask_trajectory.MaskTrajectory`
    manifest.jsonl         one clip a line, sorted by id: see :class:`ClipRow`
    rejects.csv            what was left out, and why

Nothing in a shard is executed when it is read (no pickle), and nothing is unpacked to the disk.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from ttm.atomic_write import written_beside
from ttm.data.video_reader import read_video
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan

LATENTS = ("video", "motion")
MEMBERS = ("json", "latents.safetensors", "mp4", "trajectory.npz")
_ID = re.compile(r"[a-z0-9_-]+")
_FACTS = {"clip_id", "source", "start_seconds", "num_frames", "fps", "height", "width", "caption", "plan",
          "frame_digest"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class PreparedClip:
    """One clip and everything that training needs of it.

    Attributes:
        clip_id: of the characters a-z, 0-9, _ and -; unique in its folder.
        source: the file it is from, relative to the folder that was prepared.
        start_seconds: where in the source it begins.
        caption: what it shows.
        plan: the caption, taken apart; object ``l`` has id ``l + 1``.
        trajectory: ids of T frames of H x W, and the clip's frames a second.
        frame_digest: :func:`digest_of` the uncompressed frames.
        latents: "video" and "motion", float16 [Z, t, h, w], or None.
        encoder: digest of the autoencoder that made the latents, or None.
        video: an mp4 file's bytes, or None.

    Raises:
        ValueError: another id, other latents, or latents without their encoder's digest.
    """

    clip_id: str
    source: str
    start_seconds: float
    caption: str
    plan: PromptPlan
    trajectory: MaskTrajectory
    frame_digest: str
    latents: Mapping[str, NDArray[np.float16]] | None = None
    encoder: str | None = None
    video: bytes | None = None

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.clip_id):
            raise ValueError(f"clip_id is {self.clip_id!r}; expected characters of a-z, 0-9, _ and -.")
        if (self.latents is None) != (self.encoder is None):
            raise ValueError(f"Clip {self.clip_id} has latents or a digest of their encoder; expected both or neither.")
        for name, array in (self.latents or {}).items():
            if name not in LATENTS or array.dtype != np.float16 or array.ndim != 4:
                found = f"{name!r}, {array.dtype} {list(array.shape)}"
                raise ValueError(f"Clip {self.clip_id} has the latents {found}; expected float16 [Z, t, h, w].")
        if self.latents is not None and set(self.latents) != set(LATENTS):
            raise ValueError(f"Clip {self.clip_id} has the latents {sorted(self.latents)}; expected {list(LATENTS)}.")

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self.trajectory.fps

    def frames(self) -> NDArray[np.uint8]:
        """The compressed frames, uint8 [T, H, W, 3].

        Raises:
            ValueError: the clip was prepared without its video, or it is damaged.
        """
        if self.video is None:
            raise ValueError(f"Clip {self.clip_id} holds no video; expected one (prepare the folder with it).")
        with NamedTemporaryFile(suffix=".mp4") as file:
            file.write(self.video)
            file.flush()
            frames = read_video(file.name, num_frames=self.trajectory.num_frames).frames
        return frames[:, : self.trajectory.height, : self.trajectory.width]  # H.264 has even sides


def digest_of(array: NDArray[Any]) -> str:
    """A hash of an array's shape and values, 16 hexadecimal digits."""
    digest = hashlib.sha256(str((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def clip_members(clip: PreparedClip) -> dict[str, bytes]:
    """The files of a clip by their suffix: the same bytes for the same clip."""
    moves = clip.trajectory
    facts = {
        "clip_id": clip.clip_id, "source": clip.source, "start_seconds": clip.start_seconds,
        "num_frames": moves.num_frames, "fps": moves.fps, "height": moves.height, "width": moves.width,
        "caption": clip.caption, "plan": clip.plan.to_dict(), "frame_digest": clip.frame_digest,
    }  # fmt: skip
    members = {"json": json.dumps(facts, ensure_ascii=False).encode(), "trajectory.npz": moves.to_bytes()}
    if clip.latents is not None:
        arrays = {name: np.ascontiguousarray(clip.latents[name]) for name in LATENTS}
        members["latents.safetensors"] = safetensors_bytes(arrays, {"encoder": str(clip.encoder)})
    if clip.video is not None:
        members["mp4"] = clip.video
    return members


def clip_from_members(members: Mapping[str, bytes], where: str) -> PreparedClip:
    """The inverse of :func:`clip_members`; without "latents.safetensors" or "mp4", the clip has none.

    Args:
        members: by suffix.
        where: what to call the clip in an error.

    Raises:
        ValueError: members that are missing, damaged, or do not fit each other.
    """
    try:
        facts = json.loads(members["json"])
        if set(facts) != _FACTS:
            raise ValueError(f"its facts are {sorted(facts)}; expected {sorted(_FACTS)}")
        plan, moves = PromptPlan.from_dict(facts["plan"]), MaskTrajectory.from_bytes(members["trajectory.npz"])
        if [facts[key] for key in ("num_frames", "height", "width", "fps")] != [*moves.ids.shape, moves.fps]:
            raise ValueError(f"its trajectory has {list(moves.ids.shape)} ids at {moves.fps:g} fps, unlike its facts")
        latents, encoder = _read_latents(members.get("latents.safetensors"))
        told = {key: facts[key] for key in ("clip_id", "source", "start_seconds", "caption", "frame_digest")}
        video = members.get("mp4")
        return PreparedClip(**told, plan=plan, trajectory=moves, latents=latents, encoder=encoder, video=video)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{where} is damaged: {reason}. Prepare it again.") from error


def _read_latents(archive: bytes | None) -> tuple[dict[str, NDArray[np.float16]] | None, str | None]:
    if archive is None:
        return None, None
    with NamedTemporaryFile(suffix=".safetensors") as file:  # the library reads metadata from files alone
        file.write(archive)
        file.flush()
        with safe_open(file.name, framework="numpy") as opened:
            latents = {name: opened.get_tensor(name) for name in opened.keys()}
            return latents, (opened.metadata() or {}).get("encoder")


@contextmanager
def written_shard(path: str | Path) -> Iterator[tarfile.TarFile]:
    """A tar archive for :func:`write_clip`, whose file is whole or absent.

    Raises:
        OSError: the folder is missing or read-only, or the disk is full.
    """
    with written_beside(path) as beside, open(beside, "wb") as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as shard:
            yield shard
        stream.flush()
        os.fsync(stream.fileno())


def write_clip(shard: tarfile.TarFile, clip: PreparedClip) -> None:
    """Add a clip to a shard."""
    write_members(shard, clip.clip_id, clip_members(clip))


def write_members(shard: tarfile.TarFile, clip_id: str, members: Mapping[str, bytes]) -> None:
    """Add a clip to a shard, as the files that :func:`clip_members` makes of it. No time or owner is noted."""
    for suffix in sorted(members):
        entry = tarfile.TarInfo(f"{clip_id}.{suffix}")
        entry.size = len(members[suffix])
        shard.addfile(entry, io.BytesIO(members[suffix]))


def read_members(path: str | Path, members: Collection[str] = MEMBERS) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The clips of a shard as bytes: id, and files by suffix.

    By the standard library: WebDataset's own reader, which training may use, loads torch, and these lines run in
    many small processes.

    Args:
        path: of the shard.
        members: the suffixes to read; others are passed over.

    Raises:
        FileNotFoundError: no such shard.
        ValueError: a shard that is cut off or damaged, or a file that is no clip's.
    """
    clip_id, found = "", dict[str, bytes]()
    try:
        with tarfile.open(path, "r|") as shard:
            for entry in shard:
                key, _, suffix = entry.name.partition(".")
                if not _ID.fullmatch(key) or not entry.isreg():
                    raise ValueError(f"it holds {entry.name!r}, which is no clip's")
                if found and key != clip_id:
                    yield clip_id, found
                    found = {}
                clip_id = key
                if suffix in members:
                    stream = shard.extractfile(entry)
                    assert stream is not None
                    found[suffix] = stream.read()
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and prepare it again.") from error
    if found:
        yield clip_id, found


def read_shard(path: str | Path, members: Collection[str] = MEMBERS) -> Iterator[PreparedClip]:
    """The clips of a shard, in its order.

    Args:
        path: of the shard.
        members: as in :func:`read_members`; "json" and "trajectory.npz" are always read.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_members` and :func:`clip_from_members`.
    """
    for clip_id, found in read_members(path, {"json", "trajectory.npz", *members}):
        yield clip_from_members(found, f"Clip {clip_id} of {path}")


def read_clips(folder: str | Path, members: Collection[str] = MEMBERS) -> Iterator[PreparedClip]:
    """Every clip of a prepared folder, shard by shard, checked against its manifest.

    Raises:
        FileNotFoundError: no manifest, or a shard that it names is missing.
        ValueError: a damaged manifest or shard, or a shard with other clips than the manifest says.
    """
    from ttm.data.clip_manifest import ClipFolderManifest

    for shard, rows in ClipFolderManifest.load(folder).shards().items():
        expected, path = [row.clip_id for row in rows], Path(folder) / shard
        seen: list[str] = []
        for clip in read_shard(path, members):
            seen.append(clip.clip_id)
            yield clip
        if sorted(seen) != expected:
            counts = f"{len(seen)} clips, and {len(expected)} by the manifest"
            raise ValueError(f"{path} does not hold what the manifest says ({counts}); prepare it again.")


def write_shard(path: str | Path, clips: Iterable[PreparedClip]) -> None:
    """Write a shard of these clips, whole or not at all.

    Raises:
        OSError: as :func:`written_shard`.
    """
    with written_shard(path) as shard:
        for clip in clips:
            write_clip(shard, clip)
