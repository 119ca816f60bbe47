"""``python -m benchmarks.human_study``: people compare videos, on this machine, without knowing whose they are.

    python -m benchmarks.human_study serve OURS OTHER …    # prints an address; raters open it in a browser
    python -m benchmarks.human_study results STUDY         # the results as CSV, whenever you like

OURS and OTHER are folders of runs (`benchmarks.run` with one video a sample) or of videos <id>.mp4 with --prompts. Each
OTHER is compared with OURS on every sample that all have. Answers are kept as they come: stop the server and start it
again with the same words, and every rater goes on where they were.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.sample_run import RECORD, VIDEO
from benchmarks.study import Pair, Study, load_study, served_alone
from benchmarks.study_results import as_csv, preferences
from benchmarks.study_server import make_server


def videos_of(folder: Path) -> dict[str, Path]:
    """The videos of a run, or of a plain folder, by sample id; samples of a run that failed have none.

    Raises:
        ValueError: there is none.
    """
    if (folder / "samples").is_dir():
        found = {path.parent.name: path for path in sorted(folder.glob(f"samples/*/{VIDEO}"))}
    else:
        found = {path.stem: path for path in sorted(folder.glob("*.mp4"))}
    if not found:
        raise ValueError(f"{folder} holds no video; expected a run, or videos <id>.mp4.")
    return found


def prompts_of(folder: Path, path: Path | None) -> dict[str, str]:
    """Prompts by sample id: of a JSON file, else of the run's records.

    Raises:
        ValueError: a file that is no object of texts, or a folder that is no run and no file.
    """
    if path is not None:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or not all(isinstance(text, str) for text in values.values()):
            raise ValueError(f'{path} holds no prompts; expected {{"id": "sentence", …}}.')
        return dict(values)
    records = [json.loads(record.read_text(encoding="utf-8")) for record in folder.glob(f"samples/*/{RECORD}")]
    if not records:
        raise ValueError(f"{folder} is no run, so the sentences are not known; expected --prompts FILE.")
    return {record["id"]: record["prompt"] for record in records}


def make_pairs(
    folders: Sequence[Path], prompts: dict[str, str], limit: int | None, seed: int
) -> tuple[list[Pair], dict[str, dict[str, Path]]]:
    """The pairs of a study, and each method's videos.

    Args:
        folders: ours first, then the others.
        prompts: by sample id.
        limit: that many samples, drawn at random; None: all.
        seed: of the draw.

    Raises:
        ValueError: fewer than two folders, two of one name, no sample in common, or one without a prompt.
    """
    names = [folder.resolve().name for folder in folders]
    if len(folders) < 2 or len(set(names)) < len(names):
        raise ValueError(f"The folders are named {names}; expected two or more, by different names.")
    videos = {name: videos_of(folder) for name, folder in zip(names, folders, strict=True)}
    shared = sorted(set.intersection(*(set(found) for found in videos.values())))
    if not shared:
        raise ValueError(f"The folders {names} have no sample in common; expected equal ids.")
    if missing := [name for name in shared if not prompts.get(name, "").strip()]:
        raise ValueError(f"{len(missing)} samples have no prompt, the first is {missing[0]!r}; expected one each.")
    if limit is not None and limit < len(shared):
        chosen = np.random.default_rng(seed).choice(len(shared), limit, replace=False)
        shared = [shared[index] for index in sorted(chosen)]
    pairs = [Pair(sample, prompts[sample], names[0], other) for sample in shared for other in names[1:]]
    return pairs, videos


def _serve(chosen: argparse.Namespace) -> int:
    prompts = prompts_of(chosen.folders[0], chosen.prompts)
    pairs, videos = make_pairs(chosen.folders, prompts, chosen.samples, chosen.seed)
    with served_alone(chosen.study):
        study = Study(chosen.study, pairs, chosen.seed, chosen.raters)
        with make_server(study, lambda sample, method: videos[method][sample], chosen.port) as server:
            host, port = server.server_address[:2]
            skipped = len(set.union(*(set(found) for found in videos.values()))) - len({pair.sample for pair in pairs})
            note = f" ({skipped} samples are left out: not in every folder, or beyond --samples)" if skipped else ""
            try:
                print(f"{len(pairs)} pairs, {study.raters} raters each{note}; answers in {chosen.study}")
                print(f"open http://{host!s}:{port}/  (Ctrl-C ends it; the same command goes on)", flush=True)
                server.serve_forever()
            except KeyboardInterrupt:
                print(f"{len(study.answers)} answers; python -m benchmarks.human_study results {chosen.study}")
    return 0


def _results(chosen: argparse.Namespace) -> int:
    print(as_csv(preferences(load_study(chosen.study))), end="")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.human_study", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", help="show the pairs")
    serve.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="ours first, then the others")
    serve.add_argument("--study", type=Path, default=Path("outputs/human_study"), help="where answers are kept")
    serve.add_argument("--prompts", type=Path, help='JSON: {"id": "sentence"}; by default from the run')
    serve.add_argument("--samples", type=int, help="that many samples, at random (the paper: 128)")
    serve.add_argument("--raters", type=int, default=5, help="answers a pair needs, odd (5)")
    serve.add_argument("--seed", type=int, default=0)
    serve.add_argument("--port", type=int, default=0, help="0: any that is free")
    serve.set_defaults(act=_serve)
    results = commands.add_parser("results", help="print the results as CSV")
    results.add_argument("study", type=Path)
    results.set_defaults(act=_results)
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.act(chosen))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
