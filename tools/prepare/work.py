"""What is done and what is left: the folder in which a preparation keeps its state.

    OUT/work/settings.json             what is prepared, and by which models; another run must ask for the same
    OUT/work/catalogue-00000.jsonl     a line a source: its clips and the shard of each, fixed once and for all
    OUT/work/records/shard-00000/      finished clips of a shard that is not: ID.tar, or ID.json of a rejected one
    OUT/work/shard-00000.json          a finished shard: its lines of the manifest, and of the rejects
    OUT/shard-00000.tar                the shard itself

Every file is whole or absent, and made of nothing but the sources and the settings. Whoever is killed, and whenever,
the next run finds what is there, does what is missing, and ends with the same bytes.
"""

from __future__ import annotations

import csv
import fcntl
import io
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tools.prepare.draft import Rejected
from tools.prepare.sources import Source
from tools.prepare.windows import Window
from ttm.atomic_write import written_beside
from ttm.data.clip_manifest import MANIFEST, REJECTS, ClipFolderManifest, ClipRow
from ttm.data.prepared_clips import (
    PreparedClip,
    clip_from_members,
    read_members,
    write_members,
    write_shard,
    written_shard,
)

REJECT_COLUMNS = ("source", "clip", "stage", "reason")


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue: a source and its clips, or why it has none.

    Attributes:
        source: of the clips.
        windows: the clips.
        rejected: why there are none, or "".
        unexpected: that was an error that says nothing about the source; the next run cuts it again.
    """

    source: Source
    windows: tuple[Window, ...]
    rejected: str = ""
    unexpected: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        windows = [window.to_dict() for window in self.windows]
        told = {"source": self.source.to_dict(), "windows": windows, "rejected": self.rejected}
        return told | {"unexpected": True} if self.unexpected else told

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Entry:
        """The inverse of :meth:`to_dict`."""
        windows = tuple(Window.from_dict(each) for each in values["windows"])
        return cls(Source.from_dict(values["source"]), windows, values["rejected"], values.get("unexpected", False))


class Work:
    """The state of a preparation.

    Args:
        out: the folder of the shards; made if absent.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / "work"
        self.folder.mkdir(parents=True, exist_ok=True)

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Note what is prepared here.

        Raises:
            ValueError: something else was begun here, or it is finished and its ``work`` was removed.
        """
        path = self.folder / "settings.json"
        told = json.loads(json.dumps(settings))
        if not path.exists():
            if finished := sorted([*self.out.glob(MANIFEST), *self.out.glob("shard-*.tar")]):
                raise ValueError(
                    f"{self.out} holds {finished[0].name} of a finished preparation, without the work folder that it"
                    " would go on from; expected a new folder."
                )
            _write_text(path, json.dumps(told, indent=1) + "\n")
            return
        begun = json.loads(path.read_text(encoding="utf-8"))
        if different := sorted(key for key in {*told, *begun} if told.get(key) != begun.get(key)):
            changes = ", ".join(f"{key} was {begun.get(key)!r} and is {told.get(key)!r}" for key in different)
            raise ValueError(f"{self.out} was begun otherwise ({changes}); expected the same, or a new folder.")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out for the time of the block; the system ends it when this process dies.

        Raises:
            ValueError: another run is at work here.
        """
        with open(self.folder / "lock", "ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"Another run is at work in {self.out}; expected one at a time.") from error
            yield

    # The catalogue -------------------------------------------------------------------------------------------------

    def catalogues(self) -> list[Path]:
        """The files of the catalogue, in order."""
        return sorted(self.folder.glob("catalogue-*.jsonl"))

    def entries(self, path: Path) -> list[Entry]:
        """The lines of a catalogue's file."""
        return [Entry.from_dict(json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]

    def known_sources(self) -> set[str]:
        """The names of the sources that are in the catalogue, but for those that are to be cut again."""
        lines = (line for path in self.catalogues() for line in path.read_text(encoding="utf-8").split("\n") if line)
        entries = (json.loads(line) for line in lines)
        return {entry["source"]["name"] for entry in entries if not entry.get("unexpected")}

    def catalogue(self, found: Sequence[Entry], clips_per_shard: int) -> Path:
        """Write the next file of the catalogue: sources with their clips, or why they have none.

        Clips fill shards in the order given; a new file begins a new shard.
        """
        files = self.catalogues()
        taken = [window.shard for path in files for entry in self.entries(path) for window in entry.windows]
        first = max((int(name[len("shard-") : -len(".tar")]) for name in taken), default=-1) + 1
        count, lines = itertools.count(), []
        for entry in found:
            names = (f"shard-{first + next(count) // clips_per_shard:05d}.tar" for _ in entry.windows)
            placed = tuple(replace(window, shard=shard) for window, shard in zip(entry.windows, names, strict=True))
            lines.append(json.dumps(replace(entry, windows=placed).to_dict(), ensure_ascii=False) + "\n")
        path = self.folder / f"catalogue-{len(files):05d}.jsonl"
        _write_text(path, "".join(lines))
        return path

    # Clips ---------------------------------------------------------------------------------------------------------

    def save_clip(self, clip: PreparedClip, shard: str) -> None:
        """Keep a finished clip until its shard is."""
        write_shard(self._record(shard, clip.clip_id, ".tar"), [clip])

    def save_rejected(self, rejected: Rejected) -> None:
        """Keep that a clip is left out."""
        _write_text(self._record(rejected.shard, rejected.clip_id, ".json"), json.dumps(rejected.to_dict()))

    def _record(self, shard: str, clip_id: str, suffix: str) -> Path:
        folder = self.folder / "records" / Path(shard).stem
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{clip_id}{suffix}"

    def begun(self, shard: str) -> set[str]:
        """The ids of a shard's clips that are finished; what killed workers left half-written is removed."""
        finished = set()
        for path in (self.folder / "records" / Path(shard).stem).glob("*"):
            if path.name.startswith("."):
                path.unlink(missing_ok=True)
            elif path.suffix == ".tar" or not json.loads(path.read_text(encoding="utf-8"))["unexpected"]:
                finished.add(path.stem)
            else:
                path.unlink()
        return finished

    # Shards --------------------------------------------------------------------------------------------------------

    def is_packed(self, shard: str) -> bool:
        """Whether a shard is finished. One whose file was removed, because it was damaged, is not."""
        part = self._part(shard)
        if not part.exists():
            return False
        holds = json.loads(part.read_text(encoding="utf-8"))["rows"]
        return not holds or (self.out / shard).is_file()

    def pack(self, shard: str, clip_ids: Sequence[str]) -> list[str]:
        """Put the finished clips of a shard together; its records are removed.

        Returns:
            the ids of clips whose records are missing or damaged (by a loss of power): then nothing is packed, and they
            have to be prepared again.
        """
        rows: list[ClipRow] = []
        rejects: list[dict[str, Any]] = []
        damaged: list[str] = []
        with written_shard(self.out / shard) as archive:
            for clip_id in clip_ids:
                reject, record = (self._record(shard, clip_id, suffix) for suffix in (".json", ".tar"))
                if reject.exists():
                    rejects.append(json.loads(reject.read_text(encoding="utf-8")))
                    continue
                try:
                    ((_, members),) = read_members(record)
                    rows.append(ClipRow.of(clip_from_members(members, clip_id), shard))
                    write_members(archive, clip_id, members)
                except (ValueError, FileNotFoundError):
                    record.unlink(missing_ok=True)
                    damaged.append(clip_id)
        if damaged or not rows:
            (self.out / shard).unlink()
        if not damaged:
            part = {"rows": [asdict(row) for row in rows], "rejects": rejects}
            _write_text(self._part(shard), json.dumps(part, ensure_ascii=False))
            shutil.rmtree(self.folder / "records" / Path(shard).stem, ignore_errors=True)
        return damaged

    def reopen(self, shard: str) -> set[str]:
        """Take a finished shard apart into records again, if some of its clips are to be tried again.

        Returns:
            the ids of those clips: an error that nothing about them explained left them out.
        """
        if not self.is_packed(shard):
            return set()
        part = json.loads(self._part(shard).read_text(encoding="utf-8"))
        rejects = [Rejected(**values) for values in part["rejects"]]
        again = {each.clip_id for each in rejects if each.unexpected}
        if again:
            for clip_id, members in read_members(self.out / shard) if part["rows"] else ():
                with written_shard(self._record(shard, clip_id, ".tar")) as archive:
                    write_members(archive, clip_id, members)
            for each in rejects:
                if not each.unexpected:
                    self.save_rejected(each)
            self._part(shard).unlink()  # from here on it is not finished; a run that is killed before begins anew
        return again

    def clear_records(self, shards: Iterable[str]) -> None:
        """Remove records that came after their shard was finished."""
        for shard in shards:
            if self.is_packed(shard):
                shutil.rmtree(self.folder / "records" / Path(shard).stem, ignore_errors=True)

    def _part(self, shard: str) -> Path:
        return self.folder / f"{Path(shard).stem}.json"

    def finish(self) -> tuple[ClipFolderManifest, list[Rejected]]:
        """Write ``manifest.jsonl`` and ``rejects.csv`` of all finished shards."""
        rows: list[ClipRow] = []
        rejects: dict[tuple[str, str], Rejected] = {}
        for path in self.catalogues():
            entries = self.entries(path)
            for entry in entries:
                if entry.rejected:
                    rejects[entry.source.name, ""] = Rejected(entry.source.name, "", "cut", entry.rejected)
                else:
                    rejects.pop((entry.source.name, ""), None)
            shards = {window.shard for entry in entries for window in entry.windows}
            for shard in sorted(name for name in shards if self.is_packed(name)):
                part = json.loads(self._part(shard).read_text(encoding="utf-8"))
                rows += [ClipRow.from_dict(row) for row in part["rows"]]
                found = [Rejected(**values) for values in part["rejects"]]
                rejects.update({(each.source, each.clip_id): each for each in found})
        done = {row.clip_id for row in rows}
        left_out = [rejects[key] for key in sorted(rejects) if key[1] not in done]
        manifest = ClipFolderManifest(tuple(rows))
        manifest.save(self.out)
        _write_text(self.out / REJECTS, _table(left_out))
        return manifest, left_out


def _table(rejects: Sequence[Rejected]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(REJECT_COLUMNS)
    writer.writerows((each.source, each.clip_id, each.stage, each.reason) for each in rejects)
    return stream.getvalue()


def read_rejects(folder: Path) -> Iterator[dict[str, str]]:
    """The lines of a folder's ``rejects.csv``."""
    with open(folder / REJECTS, encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _write_text(path: Path, text: str) -> None:
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")
