"""The recipe of ttm-tiny: every component, one after the other, then the folder.

    python -m tools.ttm_tiny                      # all of it; started again, it goes on where it stopped
    python -m tools.ttm_tiny --only vae,stage_1   # some of it
    python -m tools.ttm_tiny --go-on              # from the embedded weights on, not from nothing
    python -m tools.ttm_tiny --scale 0.1          # a tenth of the minutes each: a rehearsal, weights too

Each step is a program of its own that resumes by itself. The autoencoder, the text encoder and the segmenter have a
budget of minutes over all their starts, and return at once when it is spent; the stages have a number of steps (minutes
limit only one start of theirs). The autoencoder's minutes are its decoder's residual blocks'; what is linear in it is
set before, in some minutes more. The budgets suit two quiet cores; a GPU would help the cache and the stages alone.
What the weights in the repository were trained on, and for how long, stands in their model card,
``ttm/pretrained/ttm-tiny/README.md``.
"""

from __future__ import annotations

from tools.recipe import run_recipe

EMBEDDED = "ttm/pretrained/ttm-tiny"
WORLD = ("host=ttm_tiny", "data.encode_scenes=4608", "data.pieces=0.3", "data.appearance=0.55")
STAGE_SETTINGS = (
    *WORLD, "batch_size=8", "optimizer.lr=1e-3", "optimizer.warmup_steps=200", "optimizer.decay=cosine",
    "optimizer.final_lr=0.05", "ema_decay=0.998", "stage.object_weight=3", "objective.sampling=uniform",
    "objective.shift=3", "export_dtype=float16",
)  # fmt: skip


def steps(scale: float, go_on: bool) -> dict[str, list[str]]:
    """Name of each step -> its command line.

    Args:
        scale: multiplies every step's minutes.
        go_on: start from the embedded weights. Their latents and text embeddings stay as they are, since both stages
            live on them: of the autoencoder only the decoder is trained.
    """

    def minutes(count: float) -> tuple[str, str]:
        return "--minutes", f"{count * scale:g}"

    def stage(name: str, folder: str, count: float, max_steps: int) -> list[str]:
        own = [f"stage={name}", f"output_dir={folder}", f"max_steps={max_steps}"]
        start = [f"host.init_from={EMBEDDED}"] if go_on else []
        return ["stages.train", *STAGE_SETTINGS, *own, *start, f"time_limit_minutes={count * scale:g}"]

    # Folders of their own: a run from nothing that is spent must not take the place of weights to go on from.
    runs = "runs/ttm-tiny/more" if go_on else "runs/ttm-tiny"
    decoder = ("--decoder-of", f"{EMBEDDED}/vae") if go_on else ()
    segmenter = ("--start", f"{EMBEDDED}/segmenter") if go_on else ()
    clip = ("--clip", f"{runs}/clip/clip.safetensors")
    transformers = {"motion-transformer": f"{runs}/stage_1", "transformer": f"{runs}/stage_2"}
    told = [part for name, run in transformers.items() for part in (f"--{name}", f"{run}/transformer")]
    commands = {
        "vae": ["tools.ttm_tiny.train_autoencoder", *minutes(30), "--run", f"{runs}/vae", *decoder],
        "text_encoder": ["tools.ttm_tiny.train_text_encoder", *minutes(5)],
        "clip": ["tools.ttm_tiny.train_clip", *minutes(40), "--run", f"{runs}/clip", *segmenter],
        "sam2": ["tools.ttm_tiny.train_segmenter", *minutes(80), "--run", f"{runs}/sam2", *clip, *segmenter],
        "cache": ["stages.cache", *WORLD],
        "stage_1": stage("image_to_motion", transformers["motion-transformer"], 60, 8000),
        "stage_2": stage("motion_to_video", transformers["transformer"], 120, 16000),
        "assemble": ["tools.ttm_tiny.assemble", *told],
    }
    if go_on:
        del commands["text_encoder"]
    return commands


if __name__ == "__main__":
    run_recipe(__doc__, steps)
