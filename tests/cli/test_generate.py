"""``ttm generate`` writes all that it says, from any step on, the same for the same seed."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from ttm.cli.few_shot_arguments import add_few_shot
from ttm.cli.generate import OUTPUTS, Inputs, Sampling, make_video
from ttm.cli.progress import Progress
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan
from ttm.pipelines.image_to_video import Pipeline

Run = Callable[..., int]


def _frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def test_generate_writes_all_that_it_says(ttm: Run, picture: str, prompt: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert ttm("generate", picture, prompt, "-o", out, "--seed", 3, "--steps", 3) == 0
    assert {path.name for path in out.iterdir()} == set(OUTPUTS)
    trajectory = MaskTrajectory.load(out / "trajectory.npz")
    for name in ("video.mp4", "trajectory.mp4", "overlay.mp4"):
        assert _frames(out / name).shape == (*trajectory.ids.shape, 3), name
    assert PromptPlan.load(out / "plan.json").phrases == ["red ball", "blue square"]
    assert min(Image.open(out / "contact_sheet.png").size) >= trajectory.height
    record = json.loads((out / "run.json").read_text())
    assert (record["seed"], record["model"], record["dtype"]) == (3, "ttm-tiny", "float32")
    assert record["versions"]["torch"] == version("torch")
    assert record["sampling"]["image_to_motion"]["num_inference_steps"] == 3
    assert {"load", "segment", "image_to_motion", "motion_to_video"} <= set(record["seconds"])


def test_same_seed_same_video_and_another_seed_another(
    pipe: Pipeline, image: np.ndarray, masks: np.ndarray, prompt: str
) -> None:
    inputs, quiet = Inputs(image, prompt, masks=masks), Progress(quiet=True)
    videos = [make_video(pipe, inputs, Sampling(seed=seed), quiet).frames[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(videos[0], videos[1])
    assert (videos[0] != videos[2]).any()


def test_make_video_is_the_pipelines_own_call(
    pipe: Pipeline, image: np.ndarray, masks: np.ndarray, prompt: str
) -> None:
    made = make_video(pipe, Inputs(image, prompt, masks=masks), Sampling(seed=5), Progress(quiet=True))
    expected = pipe(image, prompt, masks=masks, generator=torch.Generator().manual_seed(5), output_type="np")
    np.testing.assert_array_equal(made.frames[0], expected.frames[0])
    assert made.trajectory == expected.trajectory


def test_the_seed_of_a_preview_renders_its_trajectory(ttm: Run, picture: str, prompt: str, tmp_path: Path) -> None:
    assert ttm("generate", picture, prompt, "-o", tmp_path / "look", "--preview", 3, "--seed", 4) == 0
    drawn = {seed: MaskTrajectory.load(tmp_path / "look" / f"trajectory_seed_{seed}.npz") for seed in (4, 5, 6)}
    assert drawn[4] != drawn[5]
    sheet = Image.open(tmp_path / "look" / "preview.png")
    assert sheet.height >= 3 * drawn[4].height
    assert ttm("generate", picture, prompt, "-o", tmp_path / "out", "--seed", 5) == 0
    assert MaskTrajectory.load(tmp_path / "out" / "trajectory.npz") == drawn[5]


def test_what_one_run_writes_another_takes(ttm: Run, picture: str, prompt: str, pipe: Pipeline, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    seen: dict[float, list[tuple[torch.Tensor, torch.Tensor]]] = {}  # by timestep: noisy latents, coverage

    def note(module: Any, arguments: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        seen.setdefault(float(arguments[1][0]), []).append((arguments[0], named["object_coverage"]))

    watching = pipe.transformer.register_forward_pre_hook(note, with_kwargs=True)
    assert ttm("generate", picture, prompt, "-o", first) == 0
    assert ttm("segment", picture, "red ball", "blue square", "-o", tmp_path / "masks") == 0
    looks = len(pipe.segmenter.seen)
    by_masks = ("--plan", first / "plan.json", "--mask", tmp_path / "masks" / "ids.png")
    assert ttm("generate", picture, *by_masks, "-o", again) == 0
    by_trajectory = ("--trajectory", first / "trajectory.npz", "--overwrite")
    assert ttm("generate", picture, prompt, *by_trajectory, "-o", again) == 0
    watching.remove()
    assert len(pipe.segmenter.seen) == looks
    (noise, coverage), *others = seen[max(seen)]
    assert len(others) == 2, "all three runs rendered"
    assert all(torch.equal(noise, each[0]) and torch.equal(coverage, each[1]) for each in others)
    assert ttm("generate", picture, prompt, *by_trajectory, "--seed", 1, "-o", tmp_path / "other") == 0
    # A product of matrices may end in another last bit by where they lie in memory (seen once in a hundred runs), and
    # the video's encoder makes levels of that; another seed makes another video.
    video, same, other = (_frames(out / "video.mp4").astype(int) for out in (first, again, tmp_path / "other"))
    assert abs(same - video).mean() < 0.5 < 2 < abs(other - video).mean()
    assert MaskTrajectory.load(again / "trajectory.npz") == MaskTrajectory.load(first / "trajectory.npz")


def test_nothing_is_overwritten_unasked(
    forbidden_ttm: Run, picture: str, prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text("precious")
    assert forbidden_ttm("generate", picture, prompt, "-o", tmp_path) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "run.json").read_text() == "precious"


def test_a_run_that_fails_leaves_the_old_outputs(
    ttm: Run, picture: str, prompt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert ttm("generate", picture, prompt, "-o", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MaskTrajectory, "save", fail)
    assert ttm("generate", picture, prompt, "-o", out, "--seed", 9, "--overwrite") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


BAD = {
    "no such image": (["absent.png", "The red ball moves."], 1, "absent.png is not there; expected an image"),
    "image is text": (["{text}", "The red ball moves."], 1, "expected PNG"),
    "names nothing": (["{picture}", "It is nice."], 1, "Found no object"),
    "no prompt": (["{picture}"], 2, "PROMPT is missing"),
    "empty prompt": (["{picture}", "  "], 2, "the text is empty"),
    "no such mask": (
        ["{picture}", "The red ball moves.", "--mask", "absent.png"],
        1,
        "absent.png is not there",
    ),
    "steps": (
        ["{picture}", "The red ball moves.", "--steps", "0"],
        2,
        "--steps: 0 is out of range; expected 1..1000",
    ),
    "scale": (["{picture}", "The red ball moves.", "--guidance-scale", "nan"], 2, "expected a finite number"),
    "preview": (["{picture}", "The red ball moves.", "--preview", "many"], 2, "'many' is no whole number"),
    "typo": (["{picture}", "The red ball moves.", "--sead", "1"], 2, "unrecognized arguments: --sead"),
    "no quotes": (["{picture}", "The", "red", "ball", "moves."], 2, "red ball moves.; a text of several words needs q"),
    "plan and a language model's option": (
        ["{picture}", "--plan", "p.json", "--llm-model", "m"],
        2,
        "--llm-model has no part in --plan FILE",
    ),
    "plan and a language model's option, 0": (
        ["{picture}", "--plan", "p.json", "--llm-timeout", "0"],
        2,
        "--llm-timeout has no part in --plan FILE",
    ),
    "seed": (["{picture}", "The red ball moves.", "--seed", str(2**64)], 2, "expected 0 to 2^63 - 1"),
    "both": (
        ["{picture}", "A ball rolls.", "--preview", "2", "--trajectory", "x.npz"],
        2,
        "expected one of them",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_any_model(
    forbidden_ttm: Run, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    words, code, message = BAD[case]
    (tmp_path / "text.png").write_text("no picture")
    words = [word.format(picture=picture, text=tmp_path / "text.png") for word in words]
    assert forbidden_ttm("generate", *words, "-o", tmp_path / "out") == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""
    assert not (tmp_path / "out").exists()


def _few_shot_options() -> list[list[str]]:
    """Every option of the group but --few-shot, each with the first value that it may have: 0 of a number."""
    page = argparse.ArgumentParser(add_help=False)
    add_few_shot(page)
    others = [action for action in page._actions if action.dest != "few_shot"]
    values = [[] if each.nargs == 0 else [each.choices[0] if each.choices else "0"] for each in others]
    return [[each.option_strings[0], *value] for each, value in zip(others, values, strict=True)]


@pytest.mark.parametrize("words", _few_shot_options(), ids=" ".join)
def test_options_of_few_shot_alone_are_refused(
    forbidden_ttm: Run, picture: str, prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert forbidden_ttm("generate", picture, prompt, *words, "-o", tmp_path / "out") == 2
    assert f"{words[0]} has no part in this; expected --few-shot FOLDER beside it." in capsys.readouterr().err


def test_a_trajectory_of_a_length_that_cannot_be_packed_is_resampled(
    ttm: Run, picture: str, prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = np.zeros((4, 32, 32), np.uint8)
    for t in range(4):
        ids[t, 3:9, 2 * t : 2 * t + 6], ids[t, 20:26, 4:10] = 1, 2
    MaskTrajectory(ids, 8.0).save(tmp_path / "moves.npz")
    words = (picture, prompt, "--trajectory", tmp_path / "moves.npz", "-o", tmp_path / "out")
    assert ttm("generate", *words) == 1
    assert "num_frames is 4" in (said := capsys.readouterr().err) and "or --num-frames beside --trajectory" in said
    assert ttm("generate", *words, "--num-frames", "5") == 0
    assert MaskTrajectory.load(tmp_path / "out" / "trajectory.npz").num_frames == 5


REFUSED = {
    "frames": (["--num-frames", "6"], "num_frames is 6.*nearest are 5 and 9"),
    "height": (["--height", "33"], "height is 33; expected a multiple of"),
    "mask of another size": (["--mask", "{small}"], "is 4 x 4; expected 32 x 32, as the image"),
    "mask without a pixel": (["--mask", "{empty}"], "shows no object|no visible pixel"),
    "mask of one object alone": (["--mask", "{one}"], r"masks hold the ids \[1\]; expected \[1, 2\]"),
    "trajectory of another plan": (
        ["--trajectory", "{moves}"],
        r"trajectory holds the ids \[3\]; expected ids of 1..2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_model_refuses_is_one_line(
    ttm: Run, picture: str, prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    words, message = REFUSED[case]
    names = {name: tmp_path / f"{name}.png" for name in ("small", "empty", "one")}
    ids = np.zeros((32, 32), np.uint8)
    Image.fromarray(ids[:4, :4]).save(names["small"])
    Image.fromarray(ids).save(names["empty"])
    ids[3:9, 3:9] = 1
    Image.fromarray(ids).save(names["one"])
    MaskTrajectory(np.stack([3 * ids] * 5)).save(tmp_path / "moves.npz")
    words = [word.format(**names, moves=tmp_path / "moves.npz") for word in words]
    assert ttm("generate", picture, prompt, *words, "-o", tmp_path / "out") == 1
    printed = capsys.readouterr().err
    assert re.search(message, printed) and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there_is_one_line(
    picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ttm.cli import main

    words = [
        "generate",
        picture,
        "The red ball moves.",
        "-o",
        str(tmp_path / "out"),
        "--model",
        "no-such-model",
    ]
    assert main(words) == 1
    assert "no-such-model" in (printed := capsys.readouterr().err) and printed.count("\n") == 1
    assert main([*words[:-2], "--device", "warp:9"]) == 1
    assert "--device warp:9 is not here" in capsys.readouterr().err
    assert main([*words, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
