"""The manifest of a folder of prepared clips: what is there, without opening a shard.

Letters: T frames, H W pixels.

``manifest.jsonl`` has one clip a line, sorted by id. It says nothing of where in a shard a clip lies, nor of when and
by how many workers it was prepared: preparing the same sources by the same settings gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ttm.atomic_write import written_beside
from ttm.data.prepared_clips import PreparedClip, digest_of

MANIFEST = "manifest.jsonl"
REJECTS = "rejects.csv"
_SHARD = re.compile(r"[A-Za-z0-9_-]+\.tar")
_KINDS = {"str": str, "int": int, "float": (int, float), "bool": bool, "str | None": (str, type(None))}


@dataclass(frozen=True)
class ClipRow:
    """One line of the manifest.

    Attributes:
        clip_id: of the clip.
        shard: the file of the folder that holds it.
        source, start_seconds, fps, caption, frame_digest: as in :class:`~ttm.data.prepared_clips.PreparedClip`.
        num_frames, height, width: T, H, W.
        objects: how many its plan names.
        trajectory_digest: of the ids, uint8 [T, H, W].
        encoder: digest of the autoencoder of its latents; None without latents.
        has_video: whether it holds its frames as an mp4.
    """

    clip_id: str
    shard: str
    source: str
    start_seconds: float
    num_frames: int
    fps: float
    height: int
    width: int
    objects: int
    caption: str
    frame_digest: str
    trajectory_digest: str
    encoder: str | None
    has_video: bool

    @classmethod
    def of(cls, clip: PreparedClip, shard: str) -> ClipRow:
        """The line of a clip."""
        moves = clip.trajectory
        return cls(
            clip.clip_id, shard, clip.source, clip.start_seconds, moves.num_frames, moves.fps, moves.height,
            moves.width, len(clip.plan.objects), clip.caption, clip.frame_digest, digest_of(moves.ids), clip.encoder,
            clip.video is not None,
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, H, W): clips of one shape can share a batch."""
        return self.num_frames, self.height, self.width

    @classmethod
    def from_dict(cls, values: Any) -> ClipRow:
        """From one line's JSON.

        Raises:
            ValueError: keys or values that are not a line's, or a shard outside of the folder.
        """
        expected = {field.name: _KINDS[str(field.type)] for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != set(expected):
            raise ValueError(f"expected an object with the keys {list(expected)}")
        wrong = [name for name, kind in expected.items() if not isinstance(values[name], kind)]  # type: ignore[arg-type]
        if wrong or not _SHARD.fullmatch(values["shard"]):
            name = wrong[0] if wrong else "shard"
            raise ValueError(f"{name!r} is {values[name]!r}; expected what the format says")
        return cls(**values)


@dataclass(frozen=True)
class ClipFolderManifest:
    """All lines of a manifest, sorted by clip id.

    Raises:
        ValueError: an id twice.
    """

    rows: tuple[ClipRow, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(sorted(self.rows, key=lambda row: row.clip_id)))
        for one, other in zip(self.rows, self.rows[1:], strict=False):
            if one.clip_id == other.clip_id:
                raise ValueError(f"Clip {one.clip_id} is in {one.shard} and in {other.shard}; expected every id once.")

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def load(cls, folder: str | Path) -> ClipFolderManifest:
        """Read a folder's manifest.

        Raises:
            FileNotFoundError: there is none.
            ValueError: a damaged one, or one without a clip.
        """
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"{path} is no file; expected a folder that tools.prepare filled.")
        rows = []
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                rows.append(ClipRow.from_dict(json.loads(line)))
            except ValueError as error:
                raise ValueError(f"Line {number} of {path} is damaged: {error}.") from error
        if not rows:
            raise ValueError(f"{path} names no clip; expected at least one (see {REJECTS} beside it).")
        return cls(tuple(rows))

    def save(self, folder: str | Path) -> None:
        """Write the manifest, whole or not at all.

        Raises:
            OSError: the folder is missing or read-only, or the disk is full.
        """
        lines = (json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in self.rows)
        with written_beside(Path(folder) / MANIFEST) as beside, open(beside, "w", encoding="utf-8") as stream:
            stream.writelines(lines)

    def shards(self) -> dict[str, list[ClipRow]]:
        """The lines by shard, shards in the order of their names."""
        return _grouped(self.rows, key=lambda row: row.shard)

    def shapes(self) -> dict[tuple[int, int, int], list[ClipRow]]:
        """The lines by (T, H, W): the buckets of training."""
        return _grouped(self.rows, key=lambda row: row.shape)

    @property
    def encoders(self) -> set[str | None]:
        """The digests of the autoencoders that made the latents; None where a clip has none."""
        return {row.encoder for row in self.rows}


def _grouped(rows: Iterable[ClipRow], key: Any) -> dict[Any, list[ClipRow]]:
    groups: dict[Any, list[ClipRow]] = {}
    for row in sorted(rows, key=lambda row: (key(row), row.clip_id)):
        groups.setdefault(key(row), []).append(row)
    return groups
