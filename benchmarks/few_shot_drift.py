"""How far an object's look drifts in long videos of the few-shot variant: python -m benchmarks.few_shot_drift

Takes the full models of :mod:`benchmarks.few_shot` (and its arguments; what is not trained yet is trained). A test
scene's masks are followed there and back until four windows are full, 65 frames for windows of 17: what changes after
the first frame is drift, for the object itself does not. Three ways: as it is, with AdaIN, with histogram matching.

Figures of each frame, of what lies inside its mask, against the first frame: the cosine of CLIP's embeddings (the
embedded CLIP: -tiny), and the distance of the mean colours (CIELAB, Euclidean: 2 is barely seen, 10 is another shade).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import few_shot
from benchmarks.few_shot_table import spread_of
from benchmarks.rows import RowFile, fingerprint
from ttm.atomic_write import written_beside
from ttm.evaluation.tiny_features import TinyClipFeatures, tiny_segmenter
from ttm.metrics.clip import unit
from ttm.metrics.foreground import foreground_clip
from ttm.metrics.scoring import Clip
from ttm.motion.mask_trajectory import MaskTrajectory

Pixels = NDArray[np.uint8]
WINDOWS = 4
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "latents matched": {"match_latents": True},
    "histograms matched": {"match_histograms": True},
}
COLOURS = {"as it is": "#b03a2e", "latents matched": "#2e6da4", "histograms matched": "#3a7d44"}


def there_and_back(ids: Pixels, num_frames: int) -> Pixels:
    """A trajectory [T, H, W] forwards and backwards to ``num_frames`` frames; no frame stands twice in a row."""
    last = len(ids) - 1
    place = np.arange(num_frames) % (2 * last)
    return ids[np.where(place > last, 2 * last - place, place)]


def likeness(features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Cosine of every frame's features [T, D] with the first frame's, [T]."""
    units = unit(features)
    return np.asarray(units @ units[0], np.float64)


def colour_distance(frames: Pixels, ids: Pixels) -> NDArray[np.float64]:
    """CIELAB distance of the foreground's mean colour in every frame from that in the first, [T]."""
    lab = [cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for frame in frames]
    means = np.stack([picture[mask].mean(axis=0) for picture, mask in zip(lab, ids > 0, strict=True)])
    return np.asarray(np.linalg.norm(means - means[0], axis=1), np.float64)


def measure(rows: RowFile, pattern: str, seed: int, arguments: argparse.Namespace) -> None:
    """The rows of one pattern and seed that are missing."""
    missing = [way for way in WAYS if ("drift", f"{pattern}/{seed}/{way}") not in rows.rows]
    if not missing:
        return
    clip = TinyClipFeatures(*tiny_segmenter())
    pipe = few_shot.learn(pattern, seed, True, arguments)
    scene = few_shot.scenes_of("test", pattern, seed, 1, arguments)[0]
    ids = there_and_back(scene.ids, 1 + WINDOWS * (arguments.num_frames - 1))
    for way in missing:
        out = pipe(
            scene.plan.prompt,
            MaskTrajectory(ids, few_shot.FPS),
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
            **few_shot.sampling_of(pipe, arguments),
            **WAYS[way],
        )
        frames = (np.asarray(out.frames[0]) * 255).round().astype(np.uint8)
        [features] = clip.extract([foreground_clip(Clip(frames, few_shot.FPS), ids)])
        row = {"cosine-tiny": likeness(features).tolist(), "colour": colour_distance(frames, ids).tolist()}
        rows.add("drift", f"{pattern}/{seed}/{way}", {"pattern": pattern, "seed": seed, "way": way, **row})
        print(f"{pattern}/{seed}/{way}: last window {window_means(row['cosine-tiny'])[-1]:.3f}", flush=True)


def window_means(values: Sequence[float]) -> list[float]:
    """The mean over the frames of each window, the first frame left out."""
    return [float(part.mean()) for part in np.array_split(np.asarray(values)[1:], WINDOWS)]


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table: each way's figures, window by window, mean and standard deviation over patterns and seeds."""
    lines = ["| figure | way | " + " | ".join(f"window {n + 1}" for n in range(WINDOWS)) + " | N |"]
    lines.append("| --- " * (WINDOWS + 3) + "|")
    for figure in ("cosine-tiny", "colour"):
        for way in WAYS:
            means = np.array([window_means(row[figure]) for row in rows if row["way"] == way])
            if len(means):
                cells = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in map(spread_of, means.T.tolist())]
                lines.append(f"| {figure} | {way} | " + " | ".join(cells) + f" | {len(means)} |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Mapping[str, Any]]) -> str:
    """The cosine with the first frame over time, one line a way (mean over patterns and seeds), as SVG."""
    width, height, left, top = 640, 260, 44, 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 40}" font-family="sans-serif"'
        ' font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + (1 - tick) * (height - top)
        lines.append(f'<line x1="{left}" x2="{width - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for place, way in enumerate(WAYS):
        found = [row["cosine-tiny"] for row in rows if row["way"] == way]
        if not found:
            continue
        mean = np.mean(found, axis=0)
        x = left + np.arange(len(mean)) * (width - left - 8) / (len(mean) - 1)
        y = top + (1 - mean) * (height - top)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[way]}" stroke-width="2"/>')
        lines.append(f'<text x="{left + 180 * place}" y="{height + 28}" fill="{COLOURS[way]}">{way}</text>')
    lines.append(f'<text x="{left}" y="{height + 12}">frame 0, and on; cosine of the object with itself there</text>')
    return "\n".join(lines) + "\n</svg>\n"


def main(words: Sequence[str] | None = None) -> None:
    """The program; its arguments are those of :mod:`benchmarks.few_shot`."""
    arguments = few_shot.read_command_line(words, __doc__)
    arguments.output.mkdir(parents=True, exist_ok=True)
    described = {name: value for name, value in vars(arguments).items() if name not in few_shot.ADDED}
    rows = RowFile(
        arguments.output / "drift.jsonl", fingerprint(described, [Path(__file__), *few_shot.decisive_files(arguments)])
    )
    try:
        for pattern, seed in few_shot.work(arguments):
            measure(rows, pattern, seed, arguments)
            found = list(rows.rows.values())
            for name, text in (("drift.md", summary(found)), ("drift.svg", plot(found))):
                with written_beside(arguments.output / name) as path:
                    path.write_text(text, encoding="utf-8")
    finally:
        rows.close()
    print((arguments.output / "drift.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
