"""Table II of the few-shot paper on motions that the base never saw: python -m benchmarks.few_shot

``python -m benchmarks.ablate table=few_shot`` is the same as jobs, a pattern and a seed each.

For each pattern of :mod:`ttm.data.motion_patterns` and each seed, six clips of the synthetic world are learnt twice,
with the masks and without them, and videos of other scenes of the same pattern are made along their true masks:

    full                  ControlNet draws the first frame, masks guide, the first frame is shared (--sharing-ratio),
                          carried along the masks
    without mask          learnt and made without mask cross-attention; the first frame is shared as it is
    without ControlNet    the first frame from the prompt alone
    without sharing       ratio 0
    shared as it is       as full, with the first frame shared as it is, the paper's Eq. 8
    renormalised          as full, with the shared noise brought back to unit variance
    latents matched, histograms matched    as full, with AdaIN, with histogram matching
    first frame given     as full, from the true first frame: what drawing it costs
    first frame carried   full's first frame carried along the masks, through the autoencoder: what full shares
    round trip            the true video through the autoencoder

Figures, each of a video, with the embedded segmenter and CLIP (columns end in -tiny: they know coloured shapes and
little else). IoU-tiny: the first of the masks that the video was to follow, tracked through the video, against the
others. Found-IoU-tiny: the same from where the prompt's phrase finds the object in the first frame; not found is 0.
Text-tiny and Frame-tiny: CLIP's cosine of frames with the prompt, and of adjacent frames; -foreground: of what lies
inside the masks.

The arguments' defaults are what serves the embedded base best; docs/few_shot.md says how they were found.
Rows are on the disk as they finish; the same command goes on where it was stopped, and trainings go on too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.few_shot_table import VARIANTS, write_table
from benchmarks.measure_run import ROOT, rule_files
from benchmarks.rows import RowFile, fingerprint, read_rows
from stages.few_shot import read_arguments, run
from stages.settings import VARIED_COLOURS, WEIGHTINGS, Settings
from ttm.atomic_write import written_beside
from ttm.data.clip_folder import Clip
from ttm.data.motion_patterns import PATTERNS
from ttm.data.prepared_clips import digest_of
from ttm.data.synthetic import SyntheticScene, SyntheticWorld
from ttm.evaluation.tiny_features import TinyClipFeatures, tiny_segmenter
from ttm.metrics.clip import frame_consistency, text_alignment
from ttm.metrics.foreground import foreground_clip
from ttm.metrics.mask_iou import mean_iou
from ttm.metrics.scoring import Clip as ScoredClip
from ttm.motion.carried_frame import carry_first_frame
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.autoencoders import decode_latents, encode_video
from ttm.pipelines.embedded import EMBEDDED, embedded_folder
from ttm.pipelines.few_shot import FewShotPipeline
from ttm.pipelines.inputs import to_model, to_uint8
from ttm.visualization import labelled_rows

Pixels = NDArray[np.uint8]
FPS = 8.0
CALLS: dict[str, dict[str, Any]] = {
    "full": {},
    "without mask": {"carried_first_frame": False},
    "without ControlNet": {"use_controlnet": False},
    "without sharing": {"sharing_ratio": 0.0},
    "shared as it is": {"carried_first_frame": False},
    "renormalised": {"renormalise_sharing": True},
    "latents matched": {"match_latents": True},
    "histograms matched": {"match_histograms": True},
    "first frame given": {},
}
"""What each variant asks of the pipeline; "without mask" asks another model, and what is not here asks none."""
RULES = (
    *("benchmarks/few_shot.py", "ttm/motion/carried_frame.py"),
    *("ttm/evaluation/tiny_features.py", "ttm/metrics/clip.py", "ttm/metrics/foreground.py"),
)
"""The code that decides what a row says, beside that of every benchmark."""
BASE_PARTS = ("unet", "motion_adapter", "controlnet", "vae", "text_encoder")
ADDED = ("output", "patterns", "variants", "seeds", "scenes")
"""Arguments that only add rows; any other makes rows that don't belong to those before."""


class Scores:
    """The figures of a video, by the embedded segmenter and CLIP."""

    def __init__(self) -> None:
        self._segmenter, weights = tiny_segmenter()
        self._clip = TinyClipFeatures(self._segmenter, weights)

    def __call__(self, frames: Pixels, scene: SyntheticScene) -> dict[str, float]:
        """Of a video uint8 [T, H, W, 3] that was to follow ``scene.ids``."""
        whole = ScoredClip(frames, FPS)
        inside = foreground_clip(whole, scene.ids)
        text = self._clip.embed_texts([scene.plan.prompt])[0]
        of_whole, of_inside = self._clip.extract([whole, inside])
        return {
            "IoU-tiny": self._followed(frames, scene, scene.ids[0]),
            "Found-IoU-tiny": self._found(frames, scene),
            "Text-tiny": text_alignment(of_whole, text),
            "Frame-tiny": frame_consistency(of_whole, "adjacent"),
            "Text-tiny-foreground": text_alignment(of_inside, text),
            "Frame-tiny-foreground": frame_consistency(of_inside, "adjacent"),
        }

    def _followed(self, frames: Pixels, scene: SyntheticScene, first: NDArray[np.uint8]) -> float:
        """The first frame's ids are given, and not judged."""
        return mean_iou(self._segmenter.track(frames, first)[1:], scene.ids[1:])

    def _found(self, frames: Pixels, scene: SyntheticScene) -> float:
        try:
            return self._followed(frames, scene, self._segmenter.segment(frames[0], scene.plan.phrases))
        except ValueError:  # the object is not in the picture
            return 0.0


def scenes_of(split: Any, pattern: str, seed: int, count: int, arguments: argparse.Namespace) -> list[SyntheticScene]:
    """Scenes of one object that moves by a pattern; the test split's objects and photographs are not in the clips."""
    world = SyntheticWorld(
        split, arguments.size, arguments.num_frames, (1, 1), appearance=0.0, motions=(pattern,), seed=1000 + seed
    )
    return [world[index] for index in range(count)]


def learn(pattern: str, seed: int, masks: bool, arguments: argparse.Namespace) -> FewShotPipeline:
    """Train on the pattern's clips, or go on, or open what is trained already.

    Raises:
        KeyboardInterrupt: the training was told to stop.
    """
    name = pattern.replace(" ", "-")
    scenes = scenes_of("val", pattern, seed, arguments.clips, arguments)
    clips = [Clip(f"{name}-{n}.mp4", scene.plan.prompt, scene.frames, scene.ids) for n, scene in enumerate(scenes)]
    settings = training_settings(seed, masks, arguments)
    decides = {name: value for name, value in asdict(settings).items() if name != "calls"}
    shown = [(clip.prompt, digest_of(clip.frames), digest_of(clip.ids)) for clip in clips]
    decisive = {"settings": decides, "clips": shown}
    trained = arguments.output / f"trained-{fingerprint(decisive, base_files(arguments))[:8]}"
    folder = trained / f"{name}-{seed}{'' if masks else '-without-mask'}"
    settings.output_dir = settings.data.clips.folder = str(folder)
    if not run(settings, clips).complete:
        raise KeyboardInterrupt("stopped; the same command goes on")
    pipe = FewShotPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def training_settings(seed: int, masks: bool, arguments: argparse.Namespace) -> Settings:
    """The settings of ``python -m stages.few_shot`` of one training, but for its folders."""
    changes = [
        f"seed={seed}", f"max_steps={arguments.steps}", f"batch_size={arguments.batch_size}",
        f"data.clips.vary_colours={arguments.vary_colours}",
        f"optimizer.name={arguments.optimizer}", f"optimizer.lr={arguments.lr}",
        f"objective.weighting={arguments.weighting}", "tracker=none",
        f"host.mask_cross_attention={str(masks).lower()}", f"data.num_frames={arguments.num_frames}",
        f"precision={arguments.precision}", "log_every=50",
        f"data.clips.height={arguments.size}", f"data.clips.width={arguments.size}", "export_dtype=float32",
        f"checkpoint_every={max(1, arguments.steps // 2)}", "keep_checkpoints=1",
    ]  # fmt: skip
    return read_arguments(["no folder", "--base", arguments.base, "-o", "no folder", *changes])


def sampling_of(pipe: FewShotPipeline, arguments: argparse.Namespace) -> dict[str, Any]:
    """How every video is sampled, as arguments of a call."""
    return {
        "num_inference_steps": arguments.sampling_steps,
        "guidance_scale": arguments.guidance_scale,
        "image_guidance_scale": arguments.mask_guidance_scale if pipe.unet.config.mask_cross_attention else 1.0,
        "controlnet_conditioning_scale": arguments.controlnet_scale,
        "controlnet_guidance_scale": arguments.controlnet_guidance_scale,
        "sharing_ratio": arguments.sharing_ratio,
        "carried_first_frame": True,
    }


def make(
    pipe: FewShotPipeline, variant: str, scene: SyntheticScene, seed: int, arguments: argparse.Namespace,
    num_frames: int | None = None,
) -> Pixels:  # fmt: skip
    """One video, uint8 [T, H, W, 3], of all the scene's frames or the first ``num_frames``."""
    if variant == "round trip":
        return round_trip(pipe.vae, scene.frames)
    if variant == "first frame carried":
        first = make(pipe, "full", scene, seed, arguments, num_frames=2)[0]
        return round_trip(pipe.vae, carry_first_frame(first, scene.ids))
    out = pipe(
        scene.plan.prompt,
        MaskTrajectory(scene.ids, FPS),
        scene.frames[0] if variant == "first frame given" else None,
        num_frames=num_frames,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **{**sampling_of(pipe, arguments), **CALLS[variant]},
    )
    made: Pixels = (np.asarray(out.frames[0]) * 255).round().astype(np.uint8)
    return made


@torch.no_grad()
def round_trip(vae: Any, frames: Pixels) -> Pixels:
    """A video [T, H, W, 3] through the autoencoder."""
    decoded: Pixels = to_uint8(decode_latents(vae, encode_video(vae, to_model(frames, vae.device))))
    return decoded


def measure(
    rows: RowFile, known: Mapping[tuple[str, str], Any], pattern: str, seed: int, arguments: argparse.Namespace
) -> None:
    """Every row of one pattern and seed that is not known, and a sheet of the first scene's videos."""
    scenes = scenes_of("test", pattern, seed, arguments.scenes, arguments)
    wanted = [(variant, n) for variant in arguments.variants for n in range(len(scenes))]
    missing = [item for item in wanted if ("table", _item(pattern, seed, *item)) not in known]
    if not missing:
        return
    sheet = arguments.output / f"{pattern.replace(' ', '-')}-{seed}.png"
    drawn = [(variant, 0) for variant in arguments.variants]
    if sheet.exists() and not set(drawn) & set(missing):
        drawn = []
    scores, shown = Scores(), {"true": scenes[0].frames}
    pipes: dict[bool, FewShotPipeline] = {}
    for variant, number in (item for item in wanted if item in missing or item in drawn):
        masks = variant != "without mask"
        if masks not in pipes:
            pipes[masks] = learn(pattern, seed, masks, arguments)
        frames = make(pipes[masks], variant, scenes[number], 100 * seed + number, arguments)
        if (variant, number) in drawn:
            shown[variant] = frames
        if (variant, number) not in missing:
            continue
        row = scores(frames, scenes[number])
        told = {"pattern": pattern, "seed": seed, "scene": number, "variant": variant}
        item = _item(pattern, seed, variant, number)
        rows.add("table", item, told | {"prompt": scenes[number].plan.prompt} | row)
        print(f"{item}: " + ", ".join(f"{name} {value:.3f}" for name, value in row.items()), flush=True)
    if drawn:
        times = np.linspace(0, arguments.num_frames - 1, 6).round().astype(int)
        picture = labelled_rows({name: clip[times] for name, clip in shown.items()}, scenes[0].plan.prompt)
        with written_beside(sheet) as path:
            Image.fromarray(picture).save(path)


def _item(pattern: str, seed: int, variant: str, number: int) -> str:
    return f"{pattern}/{seed}/{variant}/{number}"


def work(arguments: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Pattern and seed of each part, one seed of every pattern before the next."""
    for seed in range(arguments.seeds):
        yield from ((pattern, seed) for pattern in arguments.patterns)


def read_command_line(words: Sequence[str] | None = None, page: str | None = __doc__) -> argparse.Namespace:
    """The program's arguments; ``page`` is what --help begins with."""
    parser = argparse.ArgumentParser(description=page, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="ttm-tiny-unet")
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS)[:4], choices=list(PATTERNS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--scenes", type=int, default=2, help="test scenes of each pattern and seed")
    parser.add_argument("--steps", type=int, default=1600, help="of training")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "muon"))
    parser.add_argument("--weighting", default="v", choices=WEIGHTINGS, help="of the noise's error")
    colours = "what of a clip is learnt in every order of red, green, blue"
    parser.add_argument("--vary-colours", default="objects", choices=VARIED_COLOURS, help=colours)
    parser.add_argument("--precision", default="no", choices=("no", "bf16"))
    parser.add_argument("--sampling-steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--mask-guidance-scale", type=float, default=1.25)
    parser.add_argument("--controlnet-scale", type=float, default=1.5)
    parser.add_argument("--controlnet-guidance-scale", type=float, default=2.0)
    parser.add_argument("--sharing-ratio", type=float, default=0.4, help="of every variant that shares")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--num-frames", type=int, default=17)
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/few_shot"))
    return parser.parse_args(words)


def belonging(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What decides the rows, as plain values, and its fingerprint."""
    described = {k: v for k, v in vars(arguments).items() if k not in ADDED}
    return described, fingerprint(described, decisive_files(arguments))


def base_files(arguments: argparse.Namespace) -> list[Path]:
    """The weights that clips are learnt on, as far as they lie on this machine."""
    folder = embedded_folder(arguments.base) or Path(arguments.base)
    return [path for part in BASE_PARTS for path in sorted((folder / part).glob("*.safetensors"))]


def decisive_files(arguments: argparse.Namespace) -> list[Path]:
    """The weights and the code that decide what a row says."""
    segmenter = sorted((EMBEDDED / "ttm-tiny" / "segmenter").rglob("*.safetensors"))
    code = [ROOT / name for name in RULES]
    return [*base_files(arguments), *segmenter, *code, *rule_files()]


def run_part(arguments: argparse.Namespace, pattern: str, seed: int) -> None:
    """One pattern and seed, in a file of its own, so that parts may run side by side; then the table so far."""
    arguments.output.mkdir(parents=True, exist_ok=True)
    described, belongs_to = belonging(arguments)
    rows = RowFile(arguments.output / f"rows-{pattern.replace(' ', '-')}-{seed}.jsonl", belongs_to)
    try:
        measure(rows, read_rows(arguments.output, belongs_to), pattern, seed, arguments)
    finally:
        rows.close()
    write_table(arguments.output, list(read_rows(arguments.output, belongs_to).values()), described)


def main(words: Sequence[str] | None = None) -> None:
    """The program; see the head of this file."""
    arguments = read_command_line(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    described, belongs_to = belonging(arguments)
    rows = RowFile(arguments.output / "rows.jsonl", belongs_to)
    try:
        for pattern, seed in work(arguments):
            measure(rows, rows.rows, pattern, seed, arguments)
            write_table(arguments.output, list(rows.rows.values()), described)
    finally:
        rows.close()
    print((arguments.output / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
