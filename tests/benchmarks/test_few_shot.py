"""The table of the few-shot variant: what its rows say, and the program on a base of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks import few_shot_drift
from benchmarks.ablation_few_shot import FewShotPlan
from benchmarks.few_shot import main, read_command_line, run_part
from benchmarks.few_shot_table import ABLATIONS, FIGURES, orders, spread, write_table
from ttm.data.motion_patterns import PATTERNS
from ttm.data.synthetic import SyntheticWorld
from ttm.motion.carried_frame import carry_first_frame


def rows_of(values: dict[str, float]) -> list[dict]:
    """Two seeds of one pattern with two scenes each; the seeds differ by 0.1, the scenes by 0.02."""
    return [
        {"pattern": "swings", "seed": seed, "scene": n, "variant": variant}
        | dict.fromkeys(FIGURES, value + 0.1 * seed + 0.02 * n)
        for variant, value in values.items()
        for seed in range(2)
        for n in range(2)
    ]


def test_mean_and_spread_are_over_patterns_and_seeds() -> None:
    mean, deviation, count = spread(rows_of({"full": 0.5}), "full", "IoU-tiny")
    assert (mean, count) == (pytest.approx(0.56), 2)
    assert deviation == pytest.approx(0.1 / 2**0.5)


def test_the_order_of_the_paper_is_said_to_hold_or_not(tmp_path: Path) -> None:
    rows = rows_of(dict(zip(ABLATIONS, (0.2, 0.4, 0.3, 0.5), strict=True)) | {"round trip": 0.5})
    said = " ".join(orders(rows))
    assert "IoU-tiny: without mask < without ControlNet holds (0.260, 0.460)" in said
    assert "without ControlNet < without sharing DOES NOT HOLD (0.460, 0.360)" in said
    assert "100% of the round trip's IoU over 2 parts; goal 90%: reached" in said
    write_table(tmp_path, rows, {"steps": 3})
    assert "| full | 0.560 ± 0.071 |" in (tmp_path / "table.md").read_text()
    assert json.loads((tmp_path / "table.json").read_text())["settings"] == {"steps": 3}


def test_variants_are_compared_on_scenes_that_both_have() -> None:
    """Where one variant has more parts than the other, harder ones do not count against it."""
    rows = rows_of({"without sharing": 0.4, "full": 0.5, "round trip": 0.5})
    harder = [row | {"seed": 2} | dict.fromkeys(FIGURES, 0.0) for row in rows_of({"full": 0.0})]
    assert orders(rows + harder) == orders(rows) and "holds (0.460, 0.560) over 2 parts" in orders(rows)[0]
    half_done = [row for row in rows if (row["variant"], row["seed"], row["scene"]) != ("full", 1, 0)]
    assert "holds (0.465, 0.565) over 2 parts" in orders(half_done)[0]


def test_nothing_is_said_of_variants_that_were_left_out() -> None:
    assert orders(rows_of({"without mask": 0.2, "full": 0.5})) == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_seen_when_asked_for_and_stays_in_the_picture(pattern: str) -> None:
    assert pattern not in {item.motion for n in range(40) for item in SyntheticWorld(size=32, num_frames=2)[n].objects}
    scene = SyntheticWorld("test", 64, 17, (1, 1), appearance=0.0, motions=(pattern,))[0]
    assert scene.plan.prompt.endswith(f"{pattern}.")
    assert np.array_equal(PATTERNS[pattern](np.zeros(1))[0], [0, 0])
    area = (scene.ids > 0).sum(axis=(1, 2))
    assert area.min() > 0.5 * area.max()
    assert np.abs(scene.objects[0].path - scene.objects[0].path[0]).max() > 6


def test_a_true_first_frame_carried_is_nearly_the_true_video() -> None:
    scene = SyntheticWorld("test", 64, 9, (1, 1), appearance=0.0, motions=("zigzags",))[0]
    made = carry_first_frame(scene.frames[0], scene.ids)
    assert made.shape == scene.frames.shape and made.dtype == np.uint8
    inside = np.stack([cv2.erode((ids > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0 for ids in scene.ids])

    def error(frames: np.ndarray) -> np.ndarray:
        return np.abs(frames.astype(int) - scene.frames).mean(axis=-1)

    still = np.broadcast_to(scene.frames[:1], scene.frames.shape)
    assert error(made)[inside].mean() < 0.2 * error(still)[inside].mean()
    assert error(made)[0].mean() < 5, "beside the hole in its ground, nothing is new"


def test_drift_is_measured_against_the_first_frame() -> None:
    ids = np.zeros((5, 8, 8), np.uint8)
    ids[np.arange(5), 2, np.arange(5)] = 1
    long = few_shot_drift.there_and_back(ids, 13)
    assert long.argmax(axis=2)[:, 2].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    frames = np.full((13, 8, 8, 3), 40, np.uint8)
    frames[long > 0] = (200, 30, 30)
    assert np.allclose(few_shot_drift.colour_distance(frames, long), 0)
    frames[6][long[6] > 0] = (30, 30, 200)
    assert np.argmax(few_shot_drift.colour_distance(frames, long)) == 6
    assert few_shot_drift.likeness(np.array([[2.0, 0], [0, 1], [1, 1]])) == pytest.approx([1, 0, 0.5**0.5])
    rows = [{"way": way, "cosine-tiny": [1.0] * 13, "colour": [0.0] * 13} for way in few_shot_drift.WAYS]
    assert "| cosine-tiny | as it is | 1.000 ± 0.000 |" in few_shot_drift.summary(rows)
    assert few_shot_drift.plot(rows).count("<polyline") == 3


def test_the_program_writes_rows_and_a_table_and_goes_on(
    save_stable_diffusion: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = save_stable_diffusion(tmp_path / "base")
    words = [
        "--base", str(base), "--patterns", "swings", "--variants", "full", "without mask", "--seeds", "1",
        "--scenes", "1", "--clips", "2", "--steps", "1", "--size", "32", "--num-frames", "5", "--sampling-steps", "1",
        "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    main(words)
    rows = (tmp_path / "out/rows.jsonl").read_text().splitlines()
    assert len(rows) == 3
    values = json.loads(rows[1])["row"]
    assert values["variant"] == "full" and all(0 <= values[name] <= 1 for name in FIGURES if "IoU" in name)
    sheet = Image.open(tmp_path / "out/swings-0.png").size
    assert "| without mask |" in capsys.readouterr().out
    main(words)
    assert (tmp_path / "out/rows.jsonl").read_text().splitlines() == rows
    run_part(read_command_line(words), "swings", 0)  # a job of benchmarks.ablate: what is known is not made again
    assert len((tmp_path / "out/rows-swings-0.jsonl").read_text().splitlines()) == 1

    (tmp_path / "out/swings-0.png").unlink()
    main([*words, "--scenes", "2"])  # rows of the second scene are new; the sheet, of the first, is whole again
    assert len((tmp_path / "out/rows.jsonl").read_text().splitlines()) == 5
    assert Image.open(tmp_path / "out/swings-0.png").size == sheet
    main([*words, "--lr", "1e-4"])  # other settings learn in a folder of their own
    assert len(list((tmp_path / "out").glob("trained-*/swings-0"))) == 2
    main(words)
    rows = (tmp_path / "out/rows.jsonl").read_text().splitlines()

    path = next((base / "unet").glob("*.safetensors"))  # the base is trained further: another model, under its old name
    save_file({name: value * 1.5 for name, value in load_file(path).items()}, path, {"format": "pt"})
    main(words)
    anew = (tmp_path / "out/rows.jsonl").read_text().splitlines()
    assert len(anew) == 3 and anew[1] != rows[1]
    assert rows in [path.read_text().splitlines() for path in (tmp_path / "out").glob("rows.jsonl.*.old")]


def test_its_cost_is_measured_and_nothing_of_it_kept(
    save_stable_diffusion: Callable[..., Path], tmp_path: Path
) -> None:
    base = save_stable_diffusion(tmp_path / "base")
    words = [
        "--base", str(base), "--scenes", "1", "--clips", "2", "--steps", "100", "--size", "32", "--num-frames", "5",
        "--sampling-steps", "1",
    ]  # fmt: skip
    told = FewShotPlan(["turns-back"], [0, 1], words, tmp_path / "out").cost()
    assert "few_shot: 2 runs" in told and "2 trainings of 100 steps, 11 videos of" in told
    assert not (tmp_path / "out").exists()
