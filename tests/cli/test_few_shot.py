"""``ttm generate --few-shot`` on a trained folder of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttm.cli import few_shot, main
from ttm.cli.generate import OUTPUTS
from ttm.data.video_reader import read_video
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.few_shot import FewShotPipeline
from ttm.pipelines.few_shot_base import Base, host_sizes
from ttm.pipelines.few_shot_folder import FewShotRecord, write_few_shot

SIZE, WINDOW = 16, 4


@pytest.fixture(scope="module")
def trained(save_stable_diffusion: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    base = save_stable_diffusion(tmp_path_factory.mktemp("base"))
    sizes = host_sizes(FewShotPipeline.from_base(str(base)).unet)
    settings = {"num_frames": WINDOW, "height": SIZE, "width": SIZE, "max_sequence_length": 8, "num_inference_steps": 2}
    folder = tmp_path_factory.mktemp("trained")
    write_few_shot(folder, {}, FewShotRecord(Base(str(base)), {}, sizes, settings=settings))
    return str(folder)


@pytest.fixture
def masks(tmp_path: Path) -> str:
    ids = np.zeros((7, SIZE, SIZE), int)
    ids[:, 4:10, 3:9] = 1
    MaskTrajectory(ids).save(tmp_path / "masks.npz")
    return str(tmp_path / "masks.npz")


def test_it_writes_what_generate_writes(trained: str, masks: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["generate", "--few-shot", trained, "a dog runs", "--trajectory", masks, "-o", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == set(OUTPUTS)
    assert read_video(out / "video.mp4").frames.shape == (7, SIZE, SIZE, 3)
    assert MaskTrajectory.load(out / "trajectory.npz") == MaskTrajectory.load(masks)
    record = json.loads((out / "run.json").read_text())
    assert record["sampling"]["num_inference_steps"] == 2 and record["sampling"]["sharing_ratio"] == 0.2
    assert record["sampling"]["carried_first_frame"] is False


def test_an_image_begins_the_video(trained: str, masks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    opened = few_shot.load_few_shot(trained, "cpu", None)

    class Listening:
        config, device, dtype = opened.config, opened.device, opened.dtype

        def __call__(self, *arguments: object, **options: object) -> object:
            given.update(options, image=arguments[2])
            return opened(*arguments, **options)

    monkeypatch.setattr(few_shot, "load_few_shot", lambda *_: Listening())
    Image.new("RGB", (SIZE, SIZE), (200, 30, 30)).save(tmp_path / "red.png")
    words = ["generate", "--few-shot", trained, str(tmp_path / "red.png"), "a dog runs", "--trajectory", masks]
    more = ["--num-frames", "3", "--sharing", "0.1", "--renormalise-sharing", "--match-colours", "both"]
    more += ["--carried-first-frame"]
    more += ["--controlnet-scale", "1.5", "--controlnet-guidance", "2"]
    assert main([*words, *more, "-o", str(tmp_path / "out")]) == 0
    assert given["image"] is not None and given["num_frames"] == 3 and given["sharing_ratio"] == 0.1
    assert (
        given["carried_first_frame"] is True
        and given["renormalise_sharing"]
        and given["match_latents"]
        and given["match_histograms"]
    )
    assert given["controlnet_conditioning_scale"] == 1.5 and given["controlnet_guidance_scale"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a dog runs"], "needs --trajectory"),
        (["a dog runs", "--trajectory", "MASKS", "--preview", "2"], "--preview has no part"),
        (["a dog runs", "--trajectory", "MASKS", "--mask", "m.png"], "--mask has no part"),
        (["a dog runs", "--trajectory", "MASKS", "--model", "m"], "takes the place of --model"),
        (["a dog runs", "--trajectory", "MASKS", "--planner", "llm"], "--planner has no part"),
        (["a dog runs", "--trajectory", "MASKS", "--llm-model", "m"], "--llm-model has no part"),
        (["a dog runs", "--trajectory", "MASKS", "--llm-timeout", "0"], "--llm-timeout has no part"),
        (["MASKS", "--trajectory", "MASKS"], "PROMPT is missing"),
        (["gone.png", "a dog runs", "--trajectory", "MASKS"], "gone.png is not there"),
        (["a dog runs", "--trajectory", "MASKS", "--sharing", "1.5"], "expected 0 to 1"),
        (["a dog runs", "--trajectory", "MASKS", "--controlnet-scale", "-1"], "expected a finite number, 0 or more"),
        (["a dog runs", "--trajectory", "MASKS", "--num-frames", "9"], "has 7 frames, the video asked for 9"),
    ],
)
def test_what_it_refuses(
    trained: str, masks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    given = [masks if word == "MASKS" else word for word in words]
    assert main(["generate", "--few-shot", trained, *given, "-o", str(tmp_path / "out")]) != 0
    printed = capsys.readouterr().err
    assert said in printed and printed.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_a_sentence_longer_than_a_name_of_a_file_may_be(trained: str, masks: str, tmp_path: Path) -> None:
    words = ["generate", "--few-shot", trained, "a dog runs " * 40, "--trajectory", masks]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0


def test_a_folder_that_was_not_trained(masks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--few-shot", str(tmp_path), "a dog runs", "--trajectory", masks, "-o", str(tmp_path / "out")]
    assert main(words) == 1
    assert "holds no few_shot.json" in capsys.readouterr().err
