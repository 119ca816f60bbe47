"""The stages on Ray Data: readers and writers as tasks on CPUs, the models as actors, on GPUs where there are any.

Without a cluster Ray starts on this machine, on the loopback interface, and stops with the program. With one
(``--address``, or ``$RAY_ADDRESS``) the same command uses all of it; every machine must see the two folders under the
same paths, and have this project installed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

from tools.prepare.draft import Draft, Rejected, Stopped, from_row, to_row
from tools.prepare.flow import Job, Kept, cut_one, keep, with_models
from tools.prepare.models import Models
from tools.prepare.settings import ClipSettings, ModelSettings
from tools.prepare.sources import Source
from tools.prepare.steps import Reading, read_drafts
from tools.prepare.work import Entry

_BLOCK = 64 << 20
"""Bytes of clips that travel together."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # readers see no GPU, and are not told so with warnings
    "RAY_worker_niceness": "0",  # Ray's 15 starves workers on a machine that does other things too
}
Row = dict[str, Any]


@contextmanager
def ray_session(address: str | None = None, num_cpus: int | None = None, store_megabytes: int = 1024) -> Iterator[None]:
    """Ray, for the time of the block: a cluster's, or one of this machine alone.

    Args:
        address: of a cluster, or "local": this machine. None = ``$RAY_ADDRESS`` if that is set, else "local".
        num_cpus: how many CPUs of this machine to use; None = all.
        store_megabytes: most memory in which clips wait between the stages, on this machine.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: no cluster at this address.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":  # read when Ray is imported: a machine alone has no other address than that of loopback
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        wanted = "pip install 'through-the-mask[data]', or --workers 0"
        raise ImportError(f"Ray is not installed; expected {wanted}.") from error
    quiet: Row = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address != "local":
        ray.init(address=address, **quiet)
    else:
        # A worker for the models, and one that reads and writes, are the least with which clips flow.
        cpus, store = max(2, num_cpus or os.cpu_count() or 2), store_megabytes << 20
        alone: Row = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        ray.init(address="local", num_cpus=cpus, object_store_memory=store, **alone, **quiet)
    try:
        _configure()
        yield
    finally:
        ray.shutdown()


def _configure() -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BLOCK
    context.max_errored_blocks = -1  # what is missing is asked for again, and told if it stays missing
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


class OnRay:
    """The stages on a running Ray.

    Args:
        model_workers: processes that each hold all models; None = one a GPU, or one where there is none.
    """

    def __init__(self, model_workers: int | None = None) -> None:
        import ray

        self.gpus = int(ray.cluster_resources().get("GPU", 0))
        self.model_workers = model_workers or max(1, self.gpus)

    def cut(self, job: Job, sources: Sequence[Source]) -> Iterator[Entry | Stopped]:
        """See :class:`~tools.prepare.flow.Runner`."""
        rows = [{"source": json.dumps(source.to_dict())} for source in sources]
        for row in _dataset(rows).map(_cut_row, fn_kwargs={"job": job}).iter_rows():
            found = json.loads(row["cut"])
            if "stopped" in found:
                yield Stopped(found["stopped"])
            else:
                yield Entry.from_dict(found)

    def prepare(self, job: Job, readings: Sequence[Reading]) -> Iterator[Kept | Stopped]:
        """See :class:`~tools.prepare.flow.Runner`."""
        rows = [{"reading": json.dumps(reading.to_dict())} for reading in readings]
        clips = _dataset(rows).flat_map(_read_row, fn_kwargs={"job": job})
        if job.models.heavy:
            where: Row = {"num_gpus": 1} if self.gpus else {"num_cpus": 1}
            clips = clips.map(ModelWorker, fn_constructor_kwargs={"job": job}, concurrency=self.model_workers, **where)
        else:
            clips = clips.map(_models_row, fn_kwargs={"job": job, "models": self.models_of(job)})
        for row in clips.map(_keep_row, fn_kwargs={"job": job}).iter_rows():
            found = json.loads(row["kept"])
            if "stopped" in found:
                yield Stopped(found["stopped"])
            else:
                rejected = found["rejected"] and Rejected(**found["rejected"])
                yield Kept(found["clip_id"], found["shard"], rejected)

    def models_of(self, job: Job) -> Callable[[Draft], Draft]:
        """What a task does in the place of an actor, where no network has to be loaded."""
        return partial(_light_models, job.clips, job.models)


def _dataset(rows: list[Row]) -> Any:
    """The rows, in as many parts as keep all workers busy and lose little when one dies."""
    import ray

    return ray.data.from_items(rows, override_num_blocks=min(len(rows), max(16, len(rows) // 32)))


def _cut_row(row: Row, job: Job) -> Row:
    try:
        return _cut(row, job)
    except Exception as error:
        return {"cut": json.dumps({"stopped": _bug(error)})}


def _bug(error: Exception) -> str:
    """An error that no stage has foreseen: Ray would log it and pass over the clip."""
    return f"{type(error).__name__}: {error}"


def _cut(row: Row, job: Job) -> Row:
    found = cut_one(job, Source.from_dict(json.loads(row["source"])))
    if isinstance(found, Stopped):
        return {"cut": json.dumps({"stopped": found.reason})}
    return {"cut": json.dumps(found.to_dict())}


def _read_row(row: Row, job: Job) -> Iterator[Row]:
    try:
        reading = Reading.from_dict(json.loads(row["reading"]))
        for item in read_drafts(job.folder, reading, job.clips, job.watch):
            yield to_row(item)
    except Exception as error:
        yield to_row(Stopped(_bug(error)))


class ModelWorker:
    """One process that holds the models."""

    def __init__(self, job: Job) -> None:
        self.job, self.broken = job, ""
        try:
            self.models = Models(job.clips, job.models)
        except Exception as error:  # told by every clip, since Ray would make the worker again and again
            self.broken = _bug(error)

    def __call__(self, row: Row) -> Row:
        """A clip through them."""
        return to_row(Stopped(self.broken)) if self.broken else _models_row(row, self.job, self.models)


def _light_models(clips: ClipSettings, models: ModelSettings, draft: Draft) -> Draft:
    return _loaded(clips, models)(draft)


@lru_cache(maxsize=1)
def _loaded(clips: ClipSettings, models: ModelSettings) -> Models:
    return Models(clips, models)


def _models_row(row: Row, job: Job, models: Callable[[Draft], Draft]) -> Row:
    try:
        return to_row(with_models(job, models, from_row(row)))
    except Exception as error:
        return to_row(Stopped(_bug(error)))


def _keep_row(row: Row, job: Job) -> Row:
    try:
        kept = keep(job, from_row(row))
    except Exception as error:
        kept = Stopped(_bug(error))
    if isinstance(kept, Stopped):
        return {"kept": json.dumps({"stopped": kept.reason})}
    rejected = kept.rejected.to_dict() if kept.rejected else None
    return {"kept": json.dumps({"clip_id": kept.clip_id, "shard": kept.shard, "rejected": rejected})}
