"""The measures on input that the synthetic world did not draw, on subjects whose score is known."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.measure import Figure, Settings
from benchmarks.measures import disc, real, sa_v, timing
from benchmarks.subject import Generated
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan

SETTINGS = Settings(size=64, num_frames=9)


def figures(module: Any, subject: Any, settings: Settings = SETTINGS) -> dict[str, Figure]:
    """All figures of a measure, by name without the indent."""
    measure = module.MEASURE
    rows = [measure.measure(subject, settings, item).row for item in measure.items(settings)]
    return {figure.name.strip(): figure for figure in measure.summarise(rows)}


def value(found: dict[str, Figure], start: str) -> float:
    """The value of the one figure whose name starts so."""
    names = [name for name in found if name.startswith(start)]
    assert len(names) == 1, names
    number = found[names[0]].value
    assert number is not None, names[0]
    return number


class MovesTheMask:
    """Carries whatever is in the first mask (the red pixels, if none is given) to the right."""

    size, num_frames = (64, 64), 9

    def round_trip(self, frames: np.ndarray) -> np.ndarray:
        return frames

    def generate(self, image: np.ndarray, prompt: str, seed: int, **more: Any) -> Generated:
        small = self.fit(image)
        ids = more.get("first_ids")
        if ids is None:
            mask = (small.astype(int) - (220, 30, 30)).__abs__().sum(-1) < 30
        else:
            mask = self.fit_ids(ids) > 0
        frames, moved = [], []
        for t in range(self.num_frames):
            step = 2 * t
            where = np.roll(mask, step, axis=1)
            around = np.median(small[~mask], axis=0).astype(np.uint8)
            plate = np.where(mask[..., None], around, small)
            frames.append(np.where(where[..., None], np.roll(small, step, axis=1), plate))
            moved.append(where)
        plan = PromptPlan(prompt, prompt, (ObjectPrompt("thing", prompt),))
        return Generated(np.stack(frames), MaskTrajectory(np.stack(moved).astype(np.uint8)), plan)

    def fit(self, image: np.ndarray, size: Any = None) -> np.ndarray:
        method = Image.Resampling.NEAREST if image.ndim == 2 else Image.Resampling.BILINEAR
        return np.array(Image.fromarray(image).resize((64, 64), method))

    fit_ids = fit


def test_a_disc_that_goes_right_is_seen_to_and_a_still_one_is_not() -> None:
    found = figures(disc, MovesTheMask())
    assert value(found, "in the trajectory") == 1
    assert value(found, "flat disc") >= 0.7

    class Stays(MovesTheMask):
        def generate(self, image: np.ndarray, prompt: str, seed: int, **more: Any) -> Generated:
            out = super().generate(image, prompt, seed, **more)
            first = np.repeat(out.frames[:1], self.num_frames, axis=0)
            return Generated(first, MaskTrajectory(np.repeat(out.trajectory.ids[:1], 9, axis=0)), out.plan)

    found = figures(disc, Stays())
    assert value(found, "flat disc") == 0 and value(found, "in the trajectory") == 0


CASE = {
    "name": "patch",
    "file": "patch.png",
    "prompt": "the patch moves right",
    "motion": "right",
    "polygon": [[0.2, 0.3], [0.5, 0.3], [0.5, 0.7], [0.2, 0.7]],
}


def test_a_real_case_measures_object_and_background(tmp_path: Path) -> None:
    picture = np.full((96, 96, 3), 128, np.uint8)
    picture[29:67, 20:48] = (200, 60, 40)
    Image.fromarray(picture).save(tmp_path / "patch.png")
    settings = replace(SETTINGS, real_data=tmp_path, real_cases=(CASE,))
    found = figures(real, MovesTheMask(), settings)
    assert value(found, 'real input, "the patch moves right"') == 1
    assert found["background PSNR"].reached, "nothing outside of the masks has changed"


def test_absent_real_data_is_said_to_be_skipped(tmp_path: Path) -> None:
    settings = replace(SETTINGS, real_data=tmp_path, real_cases=(CASE,))
    for module in (real, sa_v):
        (figure,) = figures(module, MovesTheMask(), settings).values()
        assert figure.value is None and figure.count == 0 and figure.note.startswith("skipped: ")


def masklets(path: Path) -> None:
    """An annotation in SA-V's format: one object throughout, and one that appears late."""

    def runs(left: int, present: bool) -> dict[str, Any]:
        # Uncompressed counts below 16 are one character each from "0"; from the fourth on, differences to two before.
        lengths = [64] if not present else [8 * left, 4, 60 - 8 * left]
        text = ""
        for number in lengths:
            while True:
                group, number = number & 31, number >> 5
                more = number != 0 or group & 16
                text += chr(48 + (group | (32 if more else 0)))
                if not more:
                    break
        return {"size": [8, 8], "counts": text}

    frames = [[runs(t % 4, True), runs(6, t >= 8)] for t in range(12)]
    path.write_text(json.dumps({"video_id": "x", "masklet": frames}), encoding="utf-8")


class RendersNoise(MovesTheMask):
    """Stage 2 gives something."""

    lost = 0

    def fit(self, image: np.ndarray, size: Any = None) -> np.ndarray:
        return image[:64, :64]

    def render(self, image: np.ndarray, moves: MaskTrajectory, plan: PromptPlan, seed: int) -> np.ndarray:
        assert moves.ids.shape == (9, 64, 64) and len(plan.objects) == 2
        return np.random.default_rng(seed).integers(0, 255, (9, 64, 64, 3)).astype(np.uint8)

    def object_tokens(self, moves: MaskTrajectory, num_objects: int) -> tuple[int, int]:
        return num_objects, num_objects - self.lost


def test_a_real_trajectory_keeps_its_objects_or_the_loss_is_seen(tmp_path: Path) -> None:
    masklets(tmp_path / sa_v.FILE)
    settings = replace(SETTINGS, real_data=tmp_path)
    subject = RendersNoise()
    (figure,) = figures(sa_v, subject, settings).values()
    assert figure.value == 1 and figure.count == 2, figure
    subject.lost = 1
    (figure,) = figures(sa_v, subject, settings).values()
    assert figure.value == 0.5 and figure.reached is False and "owners 1" in figure.note


def test_a_command_that_fails_is_said_and_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Somewhere(MovesTheMask):
        source = "somewhere"

    def run(command: list[str], **more: Any) -> None:
        assert command[-2:] == ["--model", "somewhere"]
        raise subprocess.CalledProcessError(2, command, stderr=b"loading\nerror: there is no such model")

    monkeypatch.setattr(subprocess, "run", run)
    (figure,) = timing.summarise([timing.measure(Somewhere(), SETTINGS, "generate").row])  # type: ignore[arg-type]
    assert figure.value is None and figure.note == "failed: error: there is no such model"


def test_the_parts_of_a_run_are_added_up() -> None:
    machine = {"processors": 2, "load": 0.5}
    parts = {"load": 9.0, "plan": 0.1, "segment": 1.0, "image_to_motion": 4.0, "motion_to_video": 5.0}
    rows: list[dict[str, Any]] = [{"wall_seconds": 25.0, "parts": parts, **machine}, {"import_seconds": 0.4, **machine}]
    found = {figure.name.strip(): figure for figure in timing.summarise(rows)}
    assert value(found, "ttm generate") == pytest.approx(10.1), "loading is left out"
    assert found["ttm generate, weights loaded"].reached and not found['python -c "import ttm"'].reached
