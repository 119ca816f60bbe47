"""From a folder of sources to a folder of shards: the run, in this process or on Ray.

Sources are taken in batches. Of each batch first all clips are cut, which fixes the shard of every clip; then the clips
that are missing flow through three stages, readers and writers on CPUs, the models on GPUs where there are any:

    read  ->  models (caption, plan, ground, track, encode)  ->  keep
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tools.prepare.draft import Draft, Item, Rejected, Stopped
from tools.prepare.models import Models, StageError, check_names, check_shapes, load_encoder
from tools.prepare.settings import ClipSettings, ModelSettings
from tools.prepare.sources import Source, find_sources
from tools.prepare.steps import Reading, Watch, cut_source, finish_clip, read_drafts
from tools.prepare.work import Entry, Work

SOURCES_A_BATCH = 4096
CLIPS_A_READING = 16
HOPELESS = 16
"""A run ends when this many clips, the first ones, have all met errors that nothing about them explains."""


class CannotGoOn(RuntimeError):
    """The run ends; what is finished is kept, and the same command goes on."""

    def __init__(self, stopped: Stopped) -> None:
        super().__init__(f"{stopped.reason}. What is finished is kept; the same command goes on with the rest.")


@dataclass(frozen=True)
class Job:
    """What every worker has to know.

    Attributes:
        folder: of the sources.
        out: of the shards.
        clips: what is prepared.
        models: by which models.
    """

    folder: Path
    out: Path
    clips: ClipSettings
    models: ModelSettings

    @property
    def watch(self) -> Watch:
        """Of this run."""
        return Watch(self.out / "work" / "busy")


@dataclass(frozen=True)
class Kept:
    """What became of a clip.

    Attributes:
        clip_id, shard: of the clip.
        rejected: None if it is among its shard's records.
    """

    clip_id: str
    shard: str
    rejected: Rejected | None = None


class Runner(Protocol):
    """Where the stages run. What a dying worker took along may be missing from what they give."""

    def cut(self, job: Job, sources: Sequence[Source]) -> Iterator[Entry | Stopped]:
        """Cut sources, in any order."""
        ...

    def prepare(self, job: Job, readings: Sequence[Reading]) -> Iterator[Kept | Stopped]:
        """Prepare clips, in any order."""
        ...


class InProcess:
    """Everything in this process, one clip after the other."""

    def cut(self, job: Job, sources: Sequence[Source]) -> Iterator[Entry | Stopped]:
        """See :class:`Runner`."""
        return (cut_one(job, source) for source in sources)

    def prepare(self, job: Job, readings: Sequence[Reading]) -> Iterator[Kept | Stopped]:
        """See :class:`Runner`."""
        models = Models(job.clips, job.models)
        for reading in readings:
            for item in read_drafts(job.folder, reading, job.clips, job.watch):
                yield keep(job, with_models(job, models, item))


def cut_one(job: Job, source: Source) -> Entry | Stopped:
    """Cut one source."""
    try:
        return cut_source(job.folder, source, job.clips, job.watch)
    except OSError as error:
        return Stopped(str(error))


def with_models(job: Job, models: Callable[[Draft], Draft], item: Item) -> Item:
    """One clip through the models."""
    if not isinstance(item, Draft):
        return item
    clip_id = item.window.clip_id
    try:
        job.watch.begin(clip_id, "models")
        return models(item)
    except StageError as error:
        return item.rejected(error.stage, str(error), error.unexpected)
    except OSError as error:
        return Stopped(str(error))
    finally:
        job.watch.end(clip_id, "models")


def keep(job: Job, item: Item) -> Kept | Stopped:
    """Write one clip down, or that it is left out."""
    if isinstance(item, Stopped):
        return item
    work = Work(job.out)
    try:
        if isinstance(item, Draft):
            try:
                finish_clip(work, item, job.clips)
                return Kept(item.window.clip_id, item.window.shard)
            except ValueError as error:
                item = item.rejected("write", str(error))
        work.save_rejected(item)
        return Kept(item.clip_id, item.shard, item)
    except OSError as error:
        return Stopped(str(error))


def prepare(
    folder: Path,
    out: Path,
    clips: ClipSettings,
    models: ModelSettings,
    runner: Runner | None = None,
    say: Callable[[str], None] = print,
    sources_a_batch: int = SOURCES_A_BATCH,
) -> tuple[int, int]:
    """Prepare every source of a folder that is not prepared yet.

    Args:
        folder: of the sources.
        out: of the shards; what an earlier run left there is gone on with.
        clips: what is prepared.
        models: by which models.
        runner: where; None = in this process.
        say: is told how far it is.
        sources_a_batch: so many sources are cut before their clips are prepared.

    Returns:
        how many clips there are, and how many clips or sources are left out, of all runs together.

    Raises:
        ValueError: nothing to prepare, settings that don't fit each other, the models or an earlier run, or clips that
            all fail.
        OSError: a folder that can't be written.
        CannotGoOn: a full disk, or the like: the same command goes on when there is room.
        RuntimeError: all clips of a batch met errors that nothing about them explains; the next run tries them again.
    """
    runner, folder, out = runner or InProcess(), folder.resolve(), out.resolve()
    if out == folder or out.is_relative_to(folder):
        raise ValueError(f"{out} lies in the folder of the sources; expected another place.")
    sources = find_sources(folder, clips.masklets)
    check_names(sources, clips, models)
    identity = _identity(clips, models)
    work = Work(out)
    with work.alone():
        work.claim(identity)
        failed = _prepare_all(work, Job(folder, out, clips, models), sources, runner, say, sources_a_batch)
        manifest, left_out = work.finish()
    if failed:
        raise RuntimeError(f"{failed}. The same command tries them again.")
    return len(manifest), len(left_out)


def _prepare_all(
    work: Work, job: Job, sources: Sequence[Source], runner: Runner, say: Callable[[str], None], sources_a_batch: int
) -> str:
    """First what an earlier run has begun, then what is new; returns as :func:`_prepare_batch` does."""
    failed = ""
    busy = job.watch.folder
    shutil.rmtree(busy, ignore_errors=True)
    busy.mkdir()
    for path in work.catalogues():
        failed = _prepare_batch(work, job, work.entries(path), runner, say) or failed
    known = work.known_sources()
    new = [source for source in sources if source.name not in known]
    for first in range(0, len(new), sources_a_batch):
        batch = new[first : first + sources_a_batch]
        path = work.catalogue(_cut_all(job, batch, runner), job.clips.clips_per_shard)
        say(f"prepare: {len(known) + first + len(batch)} of {len(known) + len(new)} sources cut")
        failed = _prepare_batch(work, job, work.entries(path), runner, say) or failed
    shutil.rmtree(busy, ignore_errors=True)
    return failed


def _identity(clips: ClipSettings, models: ModelSettings) -> dict[str, Any]:
    """What another run must have in common with this one; of the autoencoder its weights, wherever they lie."""
    encoder = None
    if models.vae:
        vae, encoder = load_encoder(models.vae)
        check_shapes(vae, clips)
    named = {"segmenter": models.segmenter, "captioner": models.captioner, "planner": models.planner}
    return {**clips.to_dict(), **named, "encoder": encoder}


def _cut_all(job: Job, batch: Sequence[Source], runner: Runner) -> list[Entry]:
    """Every source of a batch, cut, in the order of names."""
    done: dict[str, Entry] = {}
    while missing := [source for source in batch if source.name not in done]:
        before = len(done)
        for found in runner.cut(job, missing):
            if isinstance(found, Stopped):
                raise CannotGoOn(found)
            done[found.source.name] = found
        _expect_progress(len(done) - before, len(missing), "sources")
    return [done[source.name] for source in batch]


def _expect_progress(came: int, asked: int, what: str) -> None:
    """Workers that die over a clip are told by the watch; this is for a program that fails in another way."""
    if not came:
        raise RuntimeError(f"None of {asked} {what} came back; expected some. The workers' logs say why.")


def _prepare_batch(work: Work, job: Job, entries: list[Entry], runner: Runner, say: Callable[[str], None]) -> str:
    """Prepare what is missing of a batch; returns how its clips failed, if all did by what nothing about them explains.

    Those of an earlier run that failed so are tried again, and may fail again without ending the run.
    """
    members: dict[str, list[str]] = {}
    for window in (window for entry in entries for window in entry.windows):
        members.setdefault(window.shard, []).append(window.clip_id)
    again = set[str]().union(*map(work.reopen, members))
    left = {shard: set(ids) - work.begun(shard) for shard, ids in members.items() if not work.is_packed(shard)}
    untouched = left == {shard: set(ids) for shard, ids in members.items()}
    tally = _Tally(work, members, left, again, say)
    tally.pack_complete(left)
    while readings := _readings(entries, left):
        before = tally.taken
        for kept in runner.prepare(job, readings):
            tally.take(kept)
        _expect_progress(tally.taken - before, sum(len(reading.windows) for reading in readings), "clips")
        tally.pack_complete(left)
    work.clear_records(members)
    if tally.taken and tally.hopeless and untouched:
        return f"All {tally.taken} clips of a batch failed, the last of them by {tally.told}"
    return ""


def _readings(entries: list[Entry], left: dict[str, set[str]]) -> list[Reading]:
    """The clips that are left, in the order of the catalogue."""
    readings = []
    for entry in entries:
        missing = [window for window in entry.windows if window.clip_id in left.get(window.shard, ())]
        for first in range(0, len(missing), CLIPS_A_READING):
            readings.append(Reading(entry.source, tuple(missing[first : first + CLIPS_A_READING])))
    return readings


class _Tally:
    """Counts what comes back, and packs each shard when its last clip has come.

    ``again`` are the clips that failed in an earlier run already: that they fail once more says nothing of the others.
    """

    def __init__(
        self,
        work: Work,
        members: dict[str, list[str]],
        left: dict[str, set[str]],
        again: set[str],
        say: Callable[[str], None],
    ) -> None:
        self.work, self.members, self.left, self.again, self.say = work, members, left, again, say
        self.taken = self.failed = 0
        self.hopeless = True
        self.told = ""

    def take(self, kept: Kept | Stopped) -> None:
        """One clip is done.

        Raises:
            CannotGoOn: the disk is full, or the like.
            ValueError: the first clips have all met errors that nothing about them explains.
        """
        if isinstance(kept, Stopped):
            raise CannotGoOn(kept)
        self.taken += 1
        if kept.rejected is None or not kept.rejected.unexpected:
            self.hopeless = False
        else:
            self.told = f"{kept.rejected.stage}: {kept.rejected.reason}"
            self.failed += kept.clip_id not in self.again
        if self.hopeless and self.failed == HOPELESS:
            raise ValueError(f"The first {HOPELESS} clips all failed, the last of them by {self.told}")
        if kept.shard in self.left:  # a worker that dies after its last clip may have it done twice
            self.left[kept.shard].discard(kept.clip_id)
            if not self.hopeless:
                self.pack_complete([kept.shard])

    def pack_complete(self, shards: Iterable[str]) -> None:
        """Pack those shards whose clips are all there; clips whose records are damaged are left again.

        Raises:
            CannotGoOn: the disk is full, or the like.
        """
        for shard in [each for each in shards if not self.left[each]]:
            try:
                self.left[shard] |= set(self.work.pack(shard, self.members[shard]))
            except OSError as error:
                raise CannotGoOn(Stopped(str(error))) from error
            if not self.left[shard]:
                del self.left[shard]
                self.say(f"prepare: {shard}; {len(self.left)} shards of this batch to go")
