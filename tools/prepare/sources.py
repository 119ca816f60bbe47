"""What there is to prepare: the videos of a folder, with what lies beside them.

A source is a video file anywhere below the folder, a video in an uncompressed tar archive (as SA-V's training videos
come), or a folder of frames (``JPEGImages_24fps/{id}``, as its validation and test videos come). Beside ``a/run.mp4``:

    a/run.txt              its caption
    a/prompts.yaml         captions of all videos of a folder, see :mod:`ttm.data.clip_prompts`
    a/run.plan.json        its plan, see :class:`ttm.objects.PromptPlan`
    a/run_manual.json      SA-V's masklets (and ``_auto``); in an archive too
    a/run.npz, a/run.masks.mp4, a/run.masks/     its masks, see :mod:`ttm.data.clip_folder`

Archives are never unpacked: what is needed is read from where it lies, so that no name in one can lead anywhere.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import Any

from ttm.data.clip_folder import MASKS_INFIX, VIDEOS, masks_beside
from ttm.data.clip_prompts import PROMPTS, checked_entry, inside, read_prompt_file

FRAMES, ANNOTATIONS = "JPEGImages_24fps", "Annotations_6fps"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class Part:
    """A file or folder below the folder of sources, or ``size`` bytes of it from ``offset`` on."""

    path: str
    offset: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class Source:
    """One video and what is known of it before it is opened.

    Attributes:
        name: its path relative to the folder; a video in an archive as if that were a folder. Unique.
        video: the file; of a folder of frames, the folder.
        masks: its masks, or None.
        masks_kind: "sa_v" (masklets) or "trajectory" (one picture of ids a frame).
        caption, phrases, plan: what is given of them.
        wrong: why it can't be prepared, or "".
    """

    name: str
    video: Part
    masks: Part | None = None
    masks_kind: str = ""
    caption: str | None = None
    phrases: tuple[str, ...] = ()
    plan: Mapping[str, Any] | None = None
    wrong: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Source:
        """The inverse of :meth:`to_dict`."""
        parts = {key: None if values[key] is None else Part(**values[key]) for key in ("video", "masks")}
        return cls(**{**values, **parts, "phrases": tuple(values["phrases"])})


def find_sources(folder: Path, masklets: str = "manual") -> list[Source]:
    """Every source below a folder, sorted by name; what can't be used says so in ``wrong``.

    Args:
        folder: of the sources. Links to folders are not followed.
        masklets: which of SA-V's two annotations to take: "manual" or "auto".

    Raises:
        ValueError: no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; expected one with videos, SA-V archives or folders of frames.")
    found: list[Source] = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if here.name in (FRAMES, ANNOTATIONS):
            found += _frame_folders(folder, here) if here.name == FRAMES else []
            folders.clear()
            continue
        folders[:] = [each for each in folders if not each.startswith(".") and not each.endswith(MASKS_INFIX)]
        found += _videos(folder, here, sorted(names), masklets)
        for name in names:
            if name.endswith(".tar") or name.endswith(_COMPRESSED):
                found += _archived(folder, here / name, masklets)
    if not found:
        raise ValueError(f"{folder} holds no video; expected {', '.join(VIDEOS)}, .tar or {FRAMES}/.")
    return sorted(found, key=lambda source: source.name)


@contextmanager
def opened(folder: Path, part: Part) -> Iterator[Path]:
    """A path at which a part can be read; of an archive's part a copy, removed afterwards.

    Raises:
        ValueError: the archive is cut off. Errors of the block name the archive, never the copy.
    """
    path = folder / part.path
    if part.offset is None or part.size is None:
        yield path
        return
    with NamedTemporaryFile(suffix=PurePosixPath(part.path).suffix) as copy, open(path, "rb") as archive:
        archive.seek(part.offset)
        left = part.size
        while left and (block := archive.read(min(left, 1 << 20))):
            copy.write(block)
            left -= len(block)
        if left:
            raise ValueError(f"{part.path} is cut off: {left} of {part.size} bytes of this part are missing.")
        copy.flush()
        try:
            yield Path(copy.name)
        except ValueError as error:  # the copy's name is another one in every run
            raise ValueError(str(error).replace(copy.name, part.path)) from error


def _relative(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _videos(folder: Path, here: Path, names: list[str], masklets: str) -> Iterator[Source]:
    seen = [Path(name) for name in names if not name.startswith(".") and not Path(name).stem.endswith(MASKS_INFIX)]
    videos = [path.name for path in seen if path.suffix.lower() in VIDEOS]
    try:
        told = dict(read_prompt_file(here / PROMPTS)) if videos and PROMPTS in names else {}
    except ValueError as error:
        yield from (_unusable(_relative(folder, here / name), str(error)) for name in videos)
        return
    for name in told.keys() - set(videos):
        lacks = f"{PROMPTS} names {name!r}, which is no video of its folder; expected some of them."
        yield _unusable(f"{_relative(folder, here / PROMPTS)}/{name}", lacks)
    for name in videos:
        source = Source(_relative(folder, here / name), Part(_relative(folder, here / name)))
        try:
            yield _with_words(_with_masks(folder, here / name, source, masklets), here / name, told.get(name))
        except (ValueError, OSError) as error:
            yield replace(source, wrong=str(error))


def _with_masks(folder: Path, path: Path, source: Source, masklets: str) -> Source:
    annotation = path.with_name(f"{path.stem}_{masklets}.json")
    if annotation.is_file():
        return replace(source, masks=Part(_relative(folder, annotation)), masks_kind="sa_v")
    beside = masks_beside(path)
    return replace(source, masks=Part(_relative(folder, beside)), masks_kind="trajectory") if beside else source


def _with_words(source: Source, path: Path, told: Any) -> Source:
    """Caption, phrases and plan of the files beside a video; of two captions, the video's own file counts."""
    values = checked_entry(path.parent, path.name, told)
    caption, phrases = values.get("prompt"), values.get("phrases") or ()
    if values.get("masks") is not None:
        masks = inside(path.parent, values["masks"], f"{path.parent / PROMPTS}: masks")
        place = PurePosixPath(source.name).parent / masks.relative_to(path.parent).as_posix()
        source = replace(source, masks=Part(str(place)), masks_kind="trajectory")
    own, plan = path.with_suffix(".txt"), path.with_suffix(".plan.json")
    if own.is_file():
        caption = own.read_text(encoding="utf-8").strip()
    if caption is not None and not (isinstance(caption, str) and caption.strip()):
        raise ValueError(f"The caption of {source.name} is {caption!r}; expected a text that is not empty.")
    if plan.is_file():
        source = replace(source, plan=json.loads(plan.read_text(encoding="utf-8")))
    return replace(source, caption=caption, phrases=tuple(phrase.strip() for phrase in phrases))


def _frame_folders(folder: Path, here: Path) -> Iterator[Source]:
    for place in sorted(path for path in here.iterdir() if path.is_dir()):
        name = _relative(folder, place)
        masks = here.parent / ANNOTATIONS / place.name
        source = Source(name, Part(name))
        if masks.is_dir():
            source = replace(source, masks=Part(_relative(folder, masks)), masks_kind="sa_v")
        yield source


def _archived(folder: Path, path: Path, masklets: str) -> Iterator[Source]:
    """The videos of an archive, found by its headers alone."""
    archive = _relative(folder, path)
    if path.name.endswith(_COMPRESSED):
        yield _unusable(archive, f"{archive} is compressed; expected an archive that can be read from any place: .tar.")
        return
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if fault := _fault(member):
                    yield _unusable(f"{archive}/{member.name}", f"{member.name!r} in {archive} {fault}.")
                elif member.isreg():
                    members[member.name] = member
                tar.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, OSError) as error:
        yield _unusable(archive, f"{archive} is cut off or damaged ({error}); its whole videos are prepared.")
    for name in sorted(members):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in VIDEOS:
            continue
        masks = members.get(f"{stem}_{masklets}.json")
        yield Source(
            f"{archive}/{name}",
            _part(archive, members[name]),
            masks=None if masks is None else _part(archive, masks),
            masks_kind="" if masks is None else "sa_v",
            caption=_archived_caption(path, members.get(f"{stem}.txt")),
        )


def _part(archive: str, member: tarfile.TarInfo) -> Part:
    return Part(archive, member.offset_data, member.size)


def _fault(member: tarfile.TarInfo) -> str:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        return "leads out of its folder; expected names inside it"
    if member.issym() or member.islnk():
        return "is a link; expected plain files"
    return ""


def _archived_caption(path: Path, member: tarfile.TarInfo | None) -> str | None:
    if member is None:
        return None
    with open(path, "rb") as stream:
        stream.seek(member.offset_data)
        return stream.read(min(member.size, 1 << 16)).decode("utf-8", "replace").strip() or None


def _unusable(name: str, why: str) -> Source:
    return Source(name, Part(name), wrong=why)
