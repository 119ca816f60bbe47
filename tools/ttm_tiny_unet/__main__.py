"""The recipe of ttm-tiny-unet: every component, one after the other, then the folder.

    python -m tools.ttm_tiny_unet                       # all of it; started again, it goes on where it stopped
    python -m tools.ttm_tiny_unet --only vae,unet       # some of it
    python -m tools.ttm_tiny_unet --go-on               # from the embedded weights on, not from nothing
    python -m tools.ttm_tiny_unet --scale 0.1           # a tenth of the minutes each: a rehearsal, of the weights too

Each step is a program of its own that resumes by itself. Its budget of minutes, for one quiet core, counts over all
its starts; the two stages have a number of steps instead, and their minutes, in which scenes are encoded too, limit
only one start. A component is made from those before it: autoencoder, text encoder, encoded scenes, U-Net with motion
adapter and ControlNet, that ControlNet alone, then the two stages, which begin as the "pretrained text-to-video model"
that U-Net and adapter are together. What the weights in the repository were trained on, and for how long, stands in
``ttm/pretrained/ttm-tiny-unet/README.md``.
"""

from __future__ import annotations

from stages.muon import has_muon
from tools.recipe import run_recipe

EMBEDDED = "ttm/pretrained/ttm-tiny-unet"
STAGE_SETTINGS = (
    "host=ttm_tiny_unet", f"host.init_from={EMBEDDED}", "batch_size=8",
    f"optimizer.name={'muon' if has_muon() else 'adamw'}", "optimizer.lr=1e-3", "optimizer.warmup_steps=100",
    "optimizer.decay=cosine", "optimizer.final_lr=0.03", "ema_decay=0.998", "data.encode_scenes=8192",
    "data.appearance=0.55",
    "stage.object_weight=3", "export_dtype=float16",
)  # fmt: skip
STAGE_2_SETTINGS = ("host.carried_first_frame=true", "stage.drop_sentence=0.3", "stage.exchanged_names=0.3")
FROM_IMAGE_MODEL = f"host.motion_adapter={EMBEDDED}"
SCENES = 2048


def steps(scale: float, go_on: bool) -> dict[str, list[str]]:
    """Name of each step -> its command line.

    Args:
        scale: multiplies every step's minutes.
        go_on: start from the embedded weights. Their latents and text embeddings stay as they are, since all else
            lives on them: of the autoencoder only the decoder is trained. The stages go on from their own weights, not
            again from U-Net and adapter.
    """
    runs = "runs/ttm-tiny-unet/more" if go_on else "runs/ttm-tiny-unet"

    def part(module: str, folder: str, count: float, *start: str) -> list[str]:
        own = ["--minutes", f"{count * scale:g}", "--run", f"{runs}/{folder}"]
        return [f"tools.ttm_tiny_unet.{module}", *own, *(start if go_on else ())]

    def stage(name: str, folder: str, count: float, max_steps: int) -> list[str]:
        own = [f"stage={name}", f"output_dir={folder}", f"max_steps={max_steps}"]
        start = () if go_on else (FROM_IMAGE_MODEL,)
        return ["stages.train", *STAGE_SETTINGS, *start, *own, f"time_limit_minutes={count * scale:g}"]

    first, second = f"{runs}/stage_1", f"{runs}/stage_2"
    commands = {
        "vae": part("train_autoencoder", "vae", 60, "--decoder-of", f"{EMBEDDED}/vae"),
        "text_encoder": part("train_text_encoder", "text_encoder", 6),
        "scenes": ["tools.ttm_tiny_unet.encoded_scenes", "--scenes", f"{max(32, round(SCENES * scale))}"],
        "unet": part("train_unet", "unet", 120, "--start", EMBEDDED, "--pictures-only", "0"),
        "controlnet": [*part("train_controlnet", "controlnet", 25), "--start", EMBEDDED],
        "image_model": ["tools.ttm_tiny_unet.assemble", "--image-model"],
        "stage_1": stage("image_to_motion", first, 50, 4200),
        "stage_2": [*stage("motion_to_video", second, 95, 8500), *STAGE_2_SETTINGS],
        "assemble": ["tools.ttm_tiny_unet.assemble", "--stage-1", first, "--stage-2", second],
    }
    if go_on:
        del commands["text_encoder"]
    return commands


if __name__ == "__main__":
    run_recipe(__doc__, steps)
