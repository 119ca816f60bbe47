"""Videos through metrics, a batch at a time: what is in memory does not grow with the number of videos."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttm.data.clip_folder import centred_part
from ttm.evaluation.inputs import Form, Item, read_clip
from ttm.metrics.scoring import Clip, Figure, MeanOverVideos, Metric, Problem, Sample
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.motion.resize_ids import resize_ids


@dataclass
class Row:
    """One video of a report: its values by metric, and why others are missing."""

    name: str
    values: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """All that an evaluation found."""

    figures: list[Figure]
    rows: list[Row]

    @property
    def faulty(self) -> list[Row]:
        """Rows of videos that are missing from some figure."""
        return [row for row in self.rows if row.problems]


def score_videos(
    items: Sequence[Item],
    metrics: Sequence[Metric],
    form: Form | None = None,
    batch_size: int = 4,
    readers: int = 2,
    on_video: Callable[[str], None] = lambda name: None,
) -> Scores:
    """Score every item by every metric.

    Args:
        items: what to read.
        metrics: fresh ones; they keep what they have seen.
        form: what every video is brought to.
        batch_size: videos that are read and measured together.
        readers: threads that read ahead, one batch at most.
        on_video: told each item's name when it is done.

    Returns:
        figures in the order of the metrics, and a row an item in the order of the items. A video that can't be read
        or measured has its problem in its row and is in no figure.
    """
    rows: list[Row] = []
    with ThreadPoolExecutor(max_workers=readers) as threads:
        read = _read_ahead(threads, items, form or Form(), depth=batch_size)
        for batch in _batches(read, batch_size):
            for sample, row in batch:
                rows.append(row)
                if sample.video is None and sample.reference is None:
                    row.problems.setdefault("video", "nothing could be read")
            for metric in metrics:
                _measure(metric, batch)
            for sample, _ in batch:
                on_video(sample.name)
    return Scores([metric.figure() for metric in metrics], rows)


def _measure(metric: Metric, batch: Sequence[tuple[Sample, Row]]) -> None:
    # A reference without a video belongs to the sets of references alone; a video that can't be read says so once.
    needs_video = isinstance(metric, MeanOverVideos)
    ready = [(sample, row) for sample, row in batch if sample.video is not None or not needs_video]
    scores = metric.add([sample for sample, _ in ready]) if ready else []
    for (_, row), score in zip(ready, scores, strict=True):
        if isinstance(score, Problem):
            row.problems[metric.name] = score.reason
        elif score is not None:
            row.values[metric.name] = score


def _read_ahead(
    threads: ThreadPoolExecutor, items: Iterable[Item], form: Form, depth: int
) -> Iterator[tuple[Sample, Row]]:
    waiting: deque[Future[tuple[Sample, Row]]] = deque()
    for item in items:
        waiting.append(threads.submit(_read, item, form))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _batches(read: Iterator[tuple[Sample, Row]], batch_size: int) -> Iterator[list[tuple[Sample, Row]]]:
    batch: list[tuple[Sample, Row]] = []
    for each in read:
        batch.append(each)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _read(item: Item, form: Form) -> tuple[Sample, Row]:
    row = Row(item.name)
    video, chosen = _clip(item.video, form, row, "video")
    reference, _ = _clip(item.reference, form, row, "reference")
    ids = None
    if item.trajectory is not None and video is not None:
        try:
            ids = _fitted(MaskTrajectory.load(item.trajectory).ids, form, chosen)
        except (OSError, ValueError) as error:
            row.problems["ids"] = _said(error)
    return Sample(item.name, video, reference, item.prompt, ids), row


def _fitted(masks: NDArray[np.uint8], form: Form, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A mask belongs to a frame of the file: those of the frames that are taken, brought to the size as these are."""
    ids = masks[: form.num_frames] if form.fps is None else masks[chosen[chosen < len(masks)]]
    if form.size is None or not len(ids):
        return ids
    box = centred_part(ids.shape[1:], form.size)
    return np.stack([resize_ids(picture[box], *form.size) for picture in ids])


def _clip(path: Path | None, form: Form, row: Row, side: str) -> tuple[Clip | None, NDArray[np.int64]]:
    if path is not None:
        try:
            return read_clip(path, form)
        except (OSError, ValueError) as error:
            row.problems[side] = _said(error)
    return None, np.arange(0)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())
