"""The stages on either side of the models: reading the clips of a source, and keeping a finished clip.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools.prepare.draft import Draft, Item, Rejected, Stopped
from tools.prepare.footage import Footage, open_footage
from tools.prepare.given_masks import load_given_masks
from tools.prepare.models import StageError, in_stage
from tools.prepare.settings import ClipSettings
from tools.prepare.sources import Source
from tools.prepare.windows import Window, cut
from tools.prepare.work import Entry, Work
from ttm.data.prepared_clips import PreparedClip, digest_of
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan

DEATHS = 2
"""A clip during which so many workers have died is left out."""


@dataclass(frozen=True)
class Reading:
    """Clips of one source that are read together."""

    source: Source
    windows: tuple[Window, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"source": self.source.to_dict(), "windows": [window.to_dict() for window in self.windows]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reading:
        """The inverse of :meth:`to_dict`."""
        return cls(Source.from_dict(values["source"]), tuple(Window.from_dict(each) for each in values["windows"]))


class Watch:
    """Notes which clip a worker is busy with, so that one that kills its workers is found out.

    Args:
        folder: of this run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, name: str, stage: str) -> None:
        """Say what is begun.

        Raises:
            StageError: workers have died over it.
        """
        path = self._path(name, stage)
        deaths = path.stat().st_size if path.exists() else 0
        if deaths >= DEATHS:
            raise StageError(stage, f"{deaths} workers died while they were busy with it", unexpected=True)
        with open(path, "ab") as stream:
            stream.write(b".")

    def end(self, name: str, stage: str) -> None:
        """Say that it is over, well or not."""
        self._path(name, stage).unlink(missing_ok=True)

    def _path(self, name: str, stage: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:20]}-{stage}"


def cut_source(folder: Path, source: Source, settings: ClipSettings, watch: Watch) -> Entry:
    """The clips of a source, or why it has none.

    Raises:
        OSError: the disk is full.
    """
    try:
        watch.begin(source.name, "cut")
        return Entry(source, tuple(in_stage("cut", _cut, folder, source, settings)))
    except StageError as error:
        return Entry(source, (), _told(folder, error), error.unexpected)
    finally:
        watch.end(source.name, "cut")


def _cut(folder: Path, source: Source, settings: ClipSettings) -> list[Window]:
    with open_footage(folder, source) as footage:
        return cut(footage, source, settings)


def read_drafts(folder: Path, reading: Reading, settings: ClipSettings, watch: Watch) -> Iterator[Item]:
    """The clips of a reading, each as it is read; those that can't be read as rejected.

    After a clip that fails the source is opened anew: what lies behind the damage may be whole.
    """
    source, remaining = reading.source, list(reading.windows)
    while remaining:
        drafts = _drafts(folder, source, tuple(remaining), settings)
        while remaining:
            window = remaining.pop(0)
            item = _next_draft(drafts, source, window, folder, watch)
            yield item
            if isinstance(item, Rejected):
                break
            if isinstance(item, Stopped):
                return


def _next_draft(drafts: Iterator[Draft], source: Source, window: Window, folder: Path, watch: Watch) -> Item:
    try:
        watch.begin(window.clip_id, "read")
        return in_stage("read", next, drafts)
    except StageError as error:
        told = _told(folder, error)
        return Rejected(source.name, window.clip_id, error.stage, told, window.shard, error.unexpected)
    except OSError as error:
        return Stopped(str(error))
    finally:
        watch.end(window.clip_id, "read")


def _drafts(folder: Path, source: Source, windows: tuple[Window, ...], settings: ClipSettings) -> Iterator[Draft]:
    with open_footage(folder, source) as footage:
        yield from _drafts_of(folder, source, footage, windows, settings)


def _drafts_of(
    folder: Path, source: Source, footage: Footage, windows: tuple[Window, ...], settings: ClipSettings
) -> Iterator[Draft]:
    numbers, fps = footage.at_rate(settings.fps)
    given = source.masks if settings.masks == "given" else None
    masks = in_stage("masks", load_given_masks, folder, source, footage, settings.max_objects) if given else None
    plan = None if source.plan is None else in_stage("plan", PromptPlan.from_dict, source.plan)
    wanted = [numbers[each.first : each.first + each.num_frames] for each in windows]
    size = windows[0].height, windows[0].width
    frames = footage.windows(wanted, size)
    for window, chosen in zip(windows, wanted, strict=True):
        clip = next(frames)
        ids, known = in_stage("masks", masks.at, chosen, size) if masks else (None, None)
        yield Draft(
            source.name, window, fps, clip, ids, known, source.caption, source.phrases, plan,
            in_order=source.masks_kind == "trajectory",
        )  # fmt: skip


def _told(folder: Path, error: Exception) -> str:
    """An error in words that do not depend on where the sources lie."""
    return " ".join(str(error).replace(f"{folder}/", "").split())[:500]


def finish_clip(work: Work, draft: Draft, settings: ClipSettings) -> None:
    """Keep a clip that is complete.

    Raises:
        OSError: it can't be written.
    """
    assert draft.ids is not None and draft.plan is not None and draft.caption is not None
    clip = PreparedClip(
        clip_id=draft.window.clip_id,
        source=draft.source,
        start_seconds=draft.window.start_seconds,
        caption=draft.caption,
        plan=draft.plan,
        trajectory=MaskTrajectory(draft.ids, draft.fps),
        frame_digest=digest_of(draft.frames),
        latents=draft.latents,
        encoder=draft.encoder,
        video=_as_mp4(draft) if settings.keep_video else None,
    )
    work.save_clip(clip, draft.window.shard)


def _as_mp4(draft: Draft) -> bytes:
    with TemporaryDirectory(prefix="ttm-prepare-") as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, draft.frames, draft.fps)
        return path.read_bytes()
