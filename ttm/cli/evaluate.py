"""``ttm evaluate``: any model's videos, scored."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ttm.cli.errors import EXIT_FAILED, EXIT_USAGE, CommandError
from ttm.cli.generate import chosen_device
from ttm.cli.output_folder import check_output, refuse_overwriting
from ttm.cli.progress import Progress, hush_libraries

T = TypeVar("T")


def run(arguments: Namespace) -> int:
    """Pair the files, load the networks, stream the videos; print the table, write the JSON.

    Returns 1 where some video is missing from a figure: the table says which and why.
    """
    output = _checked_output(arguments)
    from ttm.evaluation import choice, inputs

    given = [name for name in ("reference", "prompts", "trajectories") if getattr(arguments, name)]
    needs: list[Any] = [{"reference": "reference", "prompts": "prompt", "trajectories": "ids"}[name] for name in given]
    sources = _as_usage(lambda: _sources(arguments))
    names = _as_usage(lambda: choice.choose(_split(arguments.metrics), needs, arguments.features == "tiny"))
    required = {need for name in names for need in choice.NEEDS[name]} - {"reference set"}
    items = inputs.pair(
        inputs.find_files(Path(arguments.videos), inputs.VIDEO_SUFFIXES, "videos"),
        _found(arguments.reference, inputs.VIDEO_SUFFIXES, "references"),
        inputs.read_prompts(Path(arguments.prompts)) if arguments.prompts else None,
        _found(arguments.trajectories, (inputs.TRAJECTORY_SUFFIX,), "trajectories"),
        required,
    )
    device = chosen_device(arguments.device)
    form = inputs.Form(arguments.num_frames, arguments.fps, tuple(arguments.size) if arguments.size else None)
    hush_libraries()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # an absent file is one error, not six notes
    from ttm.evaluation import report, streaming

    with Progress() as progress:
        with progress.stage("load", "loading the networks"):
            metrics = choice.build_metrics(names, sources, device, _cache(arguments))
        progress.expect(len(items))
        scores = streaming.score_videos(items, metrics, form, arguments.batch_size, on_video=progress.step)
    print(report.table(scores))
    if output is not None:
        refuse_overwriting(output.parent, [output.name], arguments.overwrite, "--json")
        report.write_json(output, report.to_dict(scores, _settings(arguments)))
        print(output)
    return EXIT_FAILED if scores.faulty else 0


def _checked_output(arguments: Namespace) -> Path | None:
    if arguments.json is None:
        return None
    path = Path(arguments.json)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise CommandError(f"{folder} is no folder; expected one to write {path.name} in.")
    check_output(folder, [path.name], arguments.overwrite, "--json")
    return path


def _as_usage(make: Callable[[], T]) -> T:
    try:
        return make()
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error


def _split(text: str | None) -> list[str]:
    return [name for name in (text or "").replace(",", " ").split() if name]


def _found(path: str | None, suffixes: tuple[str, ...], what: str) -> dict[str, Path] | None:
    from ttm.evaluation.inputs import find_files

    return find_files(Path(path), suffixes, what) if path else None


def _sources(arguments: Namespace) -> Any:
    from ttm.evaluation.choice import Sources

    return Sources(
        i3d=arguments.i3d,
        clip=arguments.clip,
        viclip=arguments.viclip,
        viclip_preparation=arguments.viclip_convention,
        raft=arguments.raft,
        segmenter=arguments.segmenter,
        tiny=arguments.features == "tiny",
    )


def _cache(arguments: Namespace) -> Path | None:
    if arguments.no_cache:
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(arguments.cache) if arguments.cache else home / "through-the-mask" / "features"


def _settings(arguments: Namespace) -> dict[str, Any]:
    told = ("videos", "reference", "prompts", "trajectories", "num_frames", "fps", "size", "features", "batch_size")
    return {name: getattr(arguments, name) for name in told}
