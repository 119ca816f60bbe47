"""``python -m tools.prepare SOURCES OUT``: videos to shards that training reads. docs/preparing_data.md has it in full.

    python -m tools.prepare videos prepared --segmenter ttm-tiny --vae ttm-tiny       # with the embedded models
    python -m tools.prepare SA-V prepared --size 480x832,832x480 --num-frames 81 --fps 24 --segmenter my-segmenter \\
        --vae Wan-AI/Wan2.1-T2V-1.3B-Diffusers --captioner Salesforce/blip-image-captioning-base
    python -m tools.prepare videos prepared --address auto                            # the same on a Ray cluster
    python -m tools.prepare videos prepared --workers 0                               # in this process, without Ray

Stopped or killed, the same command goes on where it was. What is left out is in OUT/rejects.csv, with its reason.
``python -m tools.prepare.sheet OUT`` draws what came out, ``python -m tools.prepare.check OUT`` reads all of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.prepare.flow import InProcess, prepare
from tools.prepare.settings import ClipSettings, ModelSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 if there is a clip, 1 if there is none, 2 for an error."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    begin = time.monotonic()
    try:
        clips, models = _clip_settings(chosen), _model_settings(chosen)
        if chosen.workers == 0:
            count, left_out = prepare(chosen.sources, chosen.out, clips, models, InProcess(), _say)
        else:
            from tools.prepare.on_ray import OnRay, ray_session

            with ray_session(chosen.address, chosen.workers, chosen.store_megabytes):
                runner = OnRay(chosen.model_workers)
                count, left_out = prepare(chosen.sources, chosen.out, clips, models, runner, _say)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"prepare: error: {error}", file=sys.stderr)
        return 2
    rejects = f"; {left_out} clips or sources left out, see {chosen.out / 'rejects.csv'}" if left_out else ""
    _say(f"prepare: {count} clips in {chosen.out} after {time.monotonic() - begin:.1f} s{rejects}")
    return 0 if count else 1


def _say(line: str) -> None:
    print(line, flush=True)


def _clip_settings(chosen: argparse.Namespace) -> ClipSettings:
    return ClipSettings(
        num_frames=tuple(sorted(set(chosen.num_frames))),
        fps=chosen.fps,
        sizes=chosen.size,
        max_clips=chosen.max_clips,
        masks=chosen.masks,
        masklets=chosen.masklets,
        between=chosen.between,
        max_objects=chosen.max_objects,
        caption=chosen.caption,
        keep_video=not chosen.no_video,
        clips_per_shard=chosen.clips_per_shard,
    )


def _model_settings(chosen: argparse.Namespace) -> ModelSettings:
    if chosen.between == "track" and chosen.segmenter is None:
        raise ValueError("--between track has nothing to track with; expected --segmenter beside it.")
    return ModelSettings(
        chosen.segmenter, chosen.vae, chosen.captioner, chosen.planner, chosen.planner_server, chosen.device
    )


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    if text == "source":
        return ()
    try:
        pairs = [part.split("x") for part in text.split(",")]
        return tuple((int(height), int(width)) for height, width in pairs)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected HEIGHTxWIDTH,… or 'source'") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tools.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path, help="a folder with videos, SA-V archives, or JPEGImages_24fps folders")
    parser.add_argument("out", type=Path, help="the folder of the shards")
    clips, own = parser.add_argument_group("clips"), ClipSettings()
    clips.add_argument("--num-frames", type=_lengths, default=own.num_frames, metavar="T,…", help="lengths (17)")
    clips.add_argument("--fps", type=float, default=own.fps, help="frames a second (8)")
    clips.add_argument("--size", type=_sizes, default=own.sizes, metavar="HxW,…", help="or 'source' (128x128)")
    clips.add_argument("--max-clips", type=int, metavar="N", help="most clips of one source")
    clips.add_argument("--caption", metavar="TEXT", help="of clips without one; {name}: the file's name in words")
    clips.add_argument("--masks", choices=("given", "tracked"), default=own.masks, help="masks beside a source")
    clips.add_argument("--masklets", choices=("manual", "auto"), default=own.masklets, help="of SA-V's training videos")
    clips.add_argument("--between", choices=("nearest", "track"), default=own.between, help="SA-V's annotated frames")
    clips.add_argument("--max-objects", type=int, default=own.max_objects, metavar="N", help="of given masks (12)")
    clips.add_argument("--no-video", action="store_true", help="leave the frames themselves out of the shards")
    clips.add_argument("--clips-per-shard", type=int, default=own.clips_per_shard, metavar="N", help="(64)")
    models = parser.add_argument_group("models (each one is left out unless it is named)")
    models.add_argument("--segmenter", metavar="FOLDER", help="a saved ttm.Segmenter, or ttm-tiny: grounds and tracks")
    models.add_argument("--vae", metavar="ID", help="a pipeline's folder or Hub id, or ttm-tiny: latents")
    models.add_argument("--captioner", metavar="ID", help="an image-to-text model of transformers")
    models.add_argument("--planner", default="rules", metavar="ID", help="rules, or a causal language model")
    models.add_argument("--planner-server", metavar="URL", help="an OpenAI-compatible server that knows it")
    models.add_argument("--device", default="auto", help="auto, cpu or cuda")
    where = parser.add_argument_group("where")
    where.add_argument("--workers", type=int, metavar="N", help="CPUs of this machine; 0: this process, without Ray")
    where.add_argument("--address", help="of a Ray cluster; default $RAY_ADDRESS, else this machine alone")
    where.add_argument("--model-workers", type=int, metavar="N", help="copies of the models (one a GPU)")
    where.add_argument("--store-megabytes", type=int, default=1024, metavar="N", help="of clips that wait (1024)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
