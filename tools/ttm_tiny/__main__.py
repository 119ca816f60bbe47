"""The recipe of ttm-tiny: every component, one after the other, then the folder.

    python -m tools.ttm_tiny                      # all of it; started again, it goes on where it stopped
    python -m tools.ttm_tiny --only vae,stage_1   # some of it
    python -m tools.ttm_tiny --scale 0.1          # a tenth of the minutes each: a rehearsal

Each step is a program of its own with a budget of minutes, and resumes by itself; a step whose budget is spent
returns at once. What was trained for how long stands in the model card of ``ttm/pretrained/ttm-tiny``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

STAGE_SETTINGS = (
    "host=ttm_tiny", "optimizer.lr=1e-3", "optimizer.warmup_steps=200", "optimizer.decay=cosine", "ema_decay=0.998",
    "objective.sampling=uniform", "objective.shift=3", "export_dtype=float16",
)  # fmt: skip


def steps(scale: float) -> dict[str, list[str]]:
    """Name of each step -> its command line, its minutes multiplied by ``scale``."""

    def minutes(count: float) -> str:
        return f"{count * scale:g}"

    def stage(name: str, folder: str, count: float, *more: str) -> list[str]:
        settings = [*STAGE_SETTINGS, f"stage={name}", f"output_dir={folder}", f"time_limit_minutes={minutes(count)}"]
        return ["stages.train", *settings, *more]

    return {
        "vae": ["tools.ttm_tiny.train_autoencoder", "--minutes", minutes(60)],
        "text_encoder": ["tools.ttm_tiny.train_text_encoder", "--minutes", minutes(5)],
        "clip": ["tools.ttm_tiny.train_clip", "--minutes", minutes(8)],
        "sam2": ["tools.ttm_tiny.train_segmenter", "--minutes", minutes(60)],
        "cache": ["stages.cache", "host=ttm_tiny", "data.encode_scenes=4096"],
        "stage_1": stage("image_to_motion", "runs/ttm-tiny/stage_1", 60, "max_steps=8000"),
        "stage_2": stage("motion_to_video", "runs/ttm-tiny/stage_2", 120, "max_steps=16000"),
        "assemble": [
            "tools.ttm_tiny.assemble",
            *("--motion-transformer", "runs/ttm-tiny/stage_1/transformer"),
            *("--transformer", "runs/ttm-tiny/stage_2/transformer"),
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of steps, separated by commas")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every step's minutes")
    arguments = parser.parse_args()
    commands = steps(arguments.scale)
    wanted = arguments.only.split(",") if arguments.only else list(commands)
    if unknown := set(wanted) - set(commands):
        parser.error(f"there is no step {sorted(unknown)}; expected some of {list(commands)}")
    for name in wanted:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", *commands[name]], check=True)


if __name__ == "__main__":
    main()
