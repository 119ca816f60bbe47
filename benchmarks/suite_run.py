"""A suite of samples on one model: videos, scores, report.

Imported only after hydra has started: the pipeline imports sam2, which puts hydra's global state to its own use.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from benchmarks.baselines import find_baseline, load_baseline
from benchmarks.build_suite import build_synthetic
from benchmarks.generators import GIVEN, Generator, OwnPipeline, VideoFolder, weights_hash
from benchmarks.lock import held
from benchmarks.manifest import NAMES, Sample, SampleSuite, load_suite
from benchmarks.measure import Settings
from benchmarks.pipeline_subject import read_dtype, weight_files
from benchmarks.report import write_report
from benchmarks.rows import plain
from benchmarks.run_page import write_pages
from benchmarks.run_view import RunResults
from benchmarks.sample_run import SampleRun
from benchmarks.sample_scores import ScoreSettings, check_settings, score_run
from benchmarks.shard import Shard, local_device
from benchmarks.variants import FirstFrameAlone, load_few_shot
from benchmarks.versions import package_versions

RUN = "run.json"
SCORES = "scores.json"
BUILT = "build.json"
"""What the synthetic suite was made with, beside its manifest."""


def benchmark_samples(config: DictConfig) -> int:
    """Run what a configuration asks for; 0 when it ran to its end (whatever the scores say)."""
    shard = Shard.read(config.shard)
    _refuse_settings_of_others(config)
    suite = open_suite(config.suite)
    samples = first_samples(suite, config.limit)
    scoring = _score_settings(config)
    check_settings(scoring, samples, kind_of_model(config) in ("pipeline", "few-shot"))
    others = [Path(str(other)) for other in config.compare]
    for other in others:  # read again for the report: what is wrong with one is said before the first video
        RunResults.of_suite(other, suite.name)
    started = time.perf_counter()
    model, note = open_model(config)
    named = re.sub(r"[^\w.-]+", "-", str(config.name or model.name)).strip("-")
    folder = Path(str(config.output or f"outputs/benchmarks/{suite.name}-{named}-{len(samples)}"))
    part = "" if shard.count == 1 else f", part {shard}"
    print(f"{suite.name} on {model.name} (ready in {time.perf_counter() - started:.1f} s){part}; results in {folder}")
    run = SampleRun(folder, samples, model, int(config.seed))
    described = plain(_described(config, suite, run, note))
    if not config.overwrite:
        _expect_same_run(folder / RUN, described)
    folder.mkdir(parents=True, exist_ok=True)
    write_report(folder / RUN, described)
    run.generate(shard, bool(config.retry))
    missing = len(samples) - len(run.records())
    if missing:
        print(f"{missing} samples are missing yet: the part that ends last scores and writes the report")
        return 0
    with held(folder / ".report.lock") as mine:
        if mine:
            _report(run, scoring, others)
        else:
            print("another process writes the report now")
    return 0


def _refuse_settings_of_others(config: DictConfig) -> None:
    """What only suites of measures read, or only other models, would be left out without a word."""
    if given := [name for name in ("scenes", "measures", "strips") if config[name] is not None]:
        raise ValueError(
            f"{given[0]} has no part in suite={config.suite.name or config.suite.folder}, which is of samples; expected"
            " suite=synthetic beside it (limit=N does the first N samples of each split)."
        )
    kind = kind_of_model(config)
    if kind == "videos":
        nested = {f"{group}.{name}": value for group in ("clip", "sampling") for name, value in config[group].items()}
        given = [name for name, value in (nested | {"give": config.give}).items() if value is not None]
        given += [name for name, usual in (("dtype", "float32"), ("model", "ttm-tiny")) if config[name] != usual]
        if given:
            raise ValueError(
                f"{given[0]} has no part in videos={config.videos}, which are scored as they are; expected a model that"
                " makes videos beside it, model=..., and no videos=..."
            )
    elif kind != "pipeline" and config.give is not None:
        raise ValueError(
            f"give has no part in model={config.model}, whose inputs are always the same; expected a pipeline of ours"
            " beside it, model=FOLDER."
        )


def _score_settings(config: DictConfig) -> ScoreSettings:
    score = config.score
    if score.features not in (None, "tiny"):
        raise ValueError(f"score.features is {score.features!r}; expected tiny, or null for public weights.")
    return ScoreSettings(
        None if score.metrics is None else tuple(str(name) for name in score.metrics),
        score.features == "tiny",
        {str(key): str(value) for key, value in score.weights.items() if value is not None},
        local_device(str(config.device)),
    )


def _report(run: SampleRun, scoring: ScoreSettings, others: Sequence[Path]) -> None:
    scores = score_run(run, scoring, run.folder / "features")
    write_report(run.folder / SCORES, plain(scores))
    written = write_pages(run.folder, others)
    print("\nwrote " + " and ".join(str(path) for path in written))


def open_suite(settings: DictConfig) -> SampleSuite:
    """The suite of a configuration; the synthetic one is made where its folder has no manifest.

    Raises:
        FileNotFoundError: no manifest. ValueError: a wrong one.
    """
    folder = Path(str(settings.folder))
    if settings.get("build"):
        build, told = settings.build, folder / BUILT
        wanted: Any = OmegaConf.to_container(build, resolve=True)
        if not any((folder / name).is_file() for name in NAMES):
            folder.mkdir(parents=True, exist_ok=True)
            print(f"making {build.scenes} scenes in {folder}")
            write_report(told, wanted)
            build_synthetic(folder, Settings(build.scenes, 0, build.seed, build.size, build.num_frames))
        elif told.is_file() and (made := json.loads(told.read_text(encoding="utf-8"))) != wanted:
            raise ValueError(f"{folder} was made with {made}; expected {wanted}: choose another suite.folder=...")
    return load_suite(folder, str(settings.name))


def first_samples(suite: SampleSuite, limit: Any) -> list[Sample]:
    """All samples, or the first ``limit`` of each split.

    Raises:
        ValueError: a limit below 1.
    """
    if limit is None:
        return list(suite.samples)
    if int(limit) < 1:
        raise ValueError(f"limit is {limit}; expected at least 1, or null for all samples.")
    kept: list[Sample] = []
    for split in dict.fromkeys(sample.split for sample in suite.samples):
        kept += [sample for sample in suite.samples if sample.split == split][: int(limit)]
    return kept


def kind_of_model(config: DictConfig) -> str:
    """What a configuration names: "videos", "baseline", "ti2v", "few-shot", or "pipeline", one of our own."""
    if config.videos is not None:
        return "videos"
    if find_baseline(str(config.model)) is not None:
        return "baseline"
    kind, colon, _ = str(config.model).partition(":")
    return kind if colon and kind in ("ti2v", "few-shot") else "pipeline"


def open_model(config: DictConfig) -> tuple[Generator, str]:
    """What makes the videos, and a note on it for the report.

    Raises:
        ValueError, FileNotFoundError: no such model, or no such folder of videos.
    """
    if config.videos is not None:
        return VideoFolder(Path(str(config.videos)), str(config.name or "")), "videos made elsewhere"
    model, note = _open_pipeline(config)
    if str(config.dtype) != "float32":
        model.identity["dtype"] = str(config.dtype)
    return model, note


def _open_pipeline(config: DictConfig) -> tuple[Generator, str]:
    """A baseline, or a pipeline of our own."""
    sampling: Any = OmegaConf.to_container(config.sampling, resolve=True)
    sampling |= OmegaConf.to_container(config.clip, resolve=True)
    device, dtype = local_device(str(config.device)), read_dtype(str(config.dtype))
    if (found := find_baseline(str(config.model))) is not None:
        baseline, weights = found
        return load_baseline(baseline, weights, sampling, device, str(config.dtype)), baseline.note
    from ttm import Pipeline

    kind, own = kind_of_model(config), str(config.model)
    source = own if kind == "pipeline" else own.partition(":")[2]
    name = str(config.name or (Path(source).name if kind == "pipeline" else f"{kind} {Path(source).name}"))
    if kind == "few-shot":
        return load_few_shot(
            Path(source), name, sampling, device, str(config.dtype)
        ), "follows the suite's trajectories"
    pipe = Pipeline.from_pretrained(source, dtype=dtype).to(device)
    files = weight_files(pipe)
    weights = weights_hash(files) if files else source
    if kind == "ti2v":
        return FirstFrameAlone(pipe, name, weights, sampling), "picture and sentence alone: no trajectory"
    give = GIVEN if config.give is None else [str(item) for item in config.give]
    return OwnPipeline(pipe, name, weights, sampling, give), ""


def _described(config: DictConfig, suite: SampleSuite, run: SampleRun, note: str) -> dict[str, Any]:
    """What run.json holds: enough to make the same videos again, and to write the report without the model."""
    return {
        "suite": suite.name,
        "published": config.suite.published,
        "model": str(config.name or run.model.name),
        "note": note,
        "samples": [sample.id for sample in run.samples],
        "identity": run.model.identity,
        "seed": run.seed,
        **({} if config.videos is None else {"videos": str(Path(str(config.videos)).resolve())}),
        "versions": package_versions(),
        "machine": {"processors": os.cpu_count(), "platform": platform.platform()},
    }


def _expect_same_run(path: Path, described: Mapping[str, Any]) -> None:
    """Raise ValueError where the videos in a folder are of another model, other settings or another seed."""
    if not path.is_file():
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    own = [key for key in ("seed", "videos") if key in known and key in described]  # older runs don't say "videos"
    before, now = ({**run["identity"], **{key: run[key] for key in own}} for run in (known, described))
    if differing := sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
        told = "; ".join(f"{key} {before.get(key)}, not {now.get(key)}" for key in differing)
        raise ValueError(
            f"{path.parent} holds the videos of another run ({told}); expected another output=..., or overwrite=true to"
            " make them anew."
        )
