"""``ttm trajectory``: what one command writes another takes, in processes of their own; errors before slow work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from ttm.cli import main
from ttm.cli import trajectory as module
from ttm.data.video_writer import write_video
from ttm.motion.keyframes import Keyframes
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.segmentation import Box, Point

ROOT = Path(__file__).parents[2]
Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line that must not load a model."""

    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(module, "load_pipeline", load)
    return lambda *words: main(["trajectory", *map(str, words)])


@pytest.fixture
def moves(tmp_path: Path) -> Path:
    ids = np.zeros((5, 24, 32), np.uint8)
    for t in range(5):
        ids[t, 4:10, 3 * t : 3 * t + 8], ids[t, 14:20, 5:20] = 1, 2
    MaskTrajectory(ids, 4.0).save(tmp_path / "moves.npz")
    return tmp_path / "moves.npz"


def test_draw_preview_and_generate_in_fresh_processes(tmp_path: Path) -> None:
    def ttm(*words: object) -> str:
        command = [sys.executable, "-m", "ttm.cli", *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    moves, scene = tmp_path / "deep" / "moves.npz", ROOT / "docs" / "demo" / "scene.png"
    said = ttm("trajectory", "draw", ROOT / "docs" / "keyframes" / "demo_scene.json", "-o", moves)
    assert "1  purple ball  in 17 of 17 frames" in said and str(moves) in said
    ttm("trajectory", "preview", moves, "-o", tmp_path / "look", "--image", scene)
    assert {path.name for path in (tmp_path / "look").iterdir()} == {"preview.png", "preview.mp4"}
    prompt = "The purple ball moves down while the green diamond slides right."
    ttm("generate", scene, prompt, "--trajectory", moves, "--steps", 1, "-o", tmp_path / "out")
    assert MaskTrajectory.load(tmp_path / "out" / "trajectory.npz") == MaskTrajectory.load(moves)
    with av.open(str(tmp_path / "out" / "video.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 17


def test_objects_of_a_first_frame_mask_are_drawn(run: Run, tmp_path: Path) -> None:
    for name, rows in (("upper", slice(2, 8)), ("lower", slice(14, 20))):
        mask = np.zeros((24, 32), np.uint8)
        mask[rows, 4:12] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    values = {"frames": 3, "objects": [{"keyframes": [{"frame": 0}, {"frame": 2, "offset": [10, 0]}]}, {}]}
    (tmp_path / "moves.json").write_text(json.dumps(values))
    masks = ("--mask", tmp_path / "upper.png", "--mask", tmp_path / "lower.png")
    assert run("draw", tmp_path / "moves.json", *masks, "-o", tmp_path / "moves.npz") == 0
    drawn = MaskTrajectory.load(tmp_path / "moves.npz")
    np.testing.assert_allclose(drawn.centroids(1)[:, 0], [7.5, 12.5, 17.5])
    np.testing.assert_allclose(drawn.centroids(2)[:, 0], 7.5)


def test_painted_frames_are_read_and_fitted(run: Run, moves: Path, tmp_path: Path) -> None:
    painted = tmp_path / "painted"
    painted.mkdir()
    trajectory = MaskTrajectory.load(moves)
    for t, frame in enumerate(trajectory.to_video()):
        Image.fromarray(frame).save(painted / f"{t}.png")
    assert run("extract", painted, "-o", tmp_path / "same.npz", "--fps", 4) == 0
    assert MaskTrajectory.load(tmp_path / "same.npz") == trajectory
    form = ("--fps", 4, "--num-frames", 3, "--size", 12, 12)
    assert run("extract", painted, "-o", tmp_path / "fitted.npz", *form) == 0
    fitted = MaskTrajectory.load(tmp_path / "fitted.npz")
    np.testing.assert_array_equal(fitted.ids, trajectory.ids[::2, 1::2, 4:28][:, :, 1::2])
    assert fitted.fps == 2.0


def test_objects_of_a_video_keep_the_order_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    class Seen:
        """Says where it was asked to look; follows nothing."""

        def to(self, device: str) -> None:
            assert device == "cpu"

        def segment(self, image: np.ndarray, phrases: list[str]) -> np.ndarray:
            asked.extend(phrases)
            return np.tri(*image.shape[:2], dtype=np.uint8)

        def segment_at(self, image: np.ndarray, places: list[Box | Point]) -> np.ndarray:
            asked.extend(places)
            ids = np.zeros(image.shape[:2], np.uint8)
            ids[:4, :4], ids[-4:, -4:] = 1, 2
            return ids

        def track(self, frames: np.ndarray, first_ids: np.ndarray) -> np.ndarray:
            return np.stack([first_ids] * len(frames))

    write_video(tmp_path / "clip.mp4", np.full((4, 32, 32, 3), 90, np.uint8), 4)
    monkeypatch.setattr(module, "load_pipeline", lambda *_: SimpleNamespace(segmenter=Seen()))
    words = ("--point", "2,3", "--phrase", "the dog", "--box", "20,20.5,30,31", "--num-frames", "3")
    source, out = str(tmp_path / "clip.mp4"), tmp_path / "out.npz"
    assert main(["trajectory", "extract", source, *words, "-o", str(out)]) == 0
    assert asked == ["the dog", Point(2, 3), Box(20, 20.5, 30, 31)]
    ids = MaskTrajectory.load(out).ids
    assert ids.shape == (3, 32, 32) and [ids[0, 0, 0], ids[0, 20, 5], ids[0, -1, -1]] == [1, 2, 3]
    assert " 2  the dog  in 3 of 3 frames" in capsys.readouterr().out


def test_preview_over_a_video(run: Run, moves: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", np.full((6, 48, 64, 3), 200, np.uint8), 4)
    assert run("preview", moves, "-o", tmp_path / "look", "--video", tmp_path / "clip.mp4") == 0
    with av.open(str(tmp_path / "look" / "preview.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 5 and frames[0].shape == (24, 32, 3)
    assert abs(int(frames[0][22, 30, 0]) - 200) < 12  # the video; and half of it, half red:
    assert frames[0][7, 3, 0] > 150 > frames[0][7, 3, 2]
    assert Image.open(tmp_path / "look" / "preview.png").width > 400
    assert run("preview", moves, "-o", tmp_path / "look") == 1  # there already


def test_preview_lays_masks_over_the_frames_of_their_times(run: Run, moves: Path, tmp_path: Path) -> None:
    fps = MaskTrajectory.load(moves).fps
    grey = np.repeat(np.arange(20, dtype=np.uint8) * 12, 24 * 32 * 3).reshape(20, 24, 32, 3)
    write_video(tmp_path / "clip.mp4", grey, 3 * fps)
    assert run("preview", moves, "-o", tmp_path / "look", "--video", tmp_path / "clip.mp4") == 0
    with av.open(str(tmp_path / "look" / "preview.mp4")) as video:
        shown = [int(frame.to_ndarray(format="rgb24")[22, 30, 0]) for frame in video.decode(video=0)]
    np.testing.assert_allclose(shown, np.arange(len(shown)) * 36, atol=14)  # every third frame of the video


def test_preview_over_the_video_that_the_masks_were_lifted_from(run: Run, moves: Path, tmp_path: Path) -> None:
    masks = MaskTrajectory.load(moves)
    lifted = MaskTrajectory(masks.ids, 24 * 4 / 47)  # as extract leaves 5 frames spread over these 48
    lifted.save(tmp_path / "lifted.npz")
    write_video(tmp_path / "clip.mp4", np.zeros((48, 24, 32, 3), np.uint8), 24)
    words = ("preview", tmp_path / "lifted.npz", "-o", tmp_path / "look", "--video", tmp_path / "clip.mp4")
    assert run(*words) == 0


def test_a_trajectory_that_came_meanwhile_stays(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, drawn = tmp_path / "moves.npz", Keyframes.draw

    def slowly(keyframes: Keyframes, *given: object) -> MaskTrajectory:
        path.write_text("another's")
        return drawn(keyframes, *given)

    monkeypatch.setattr(Keyframes, "draw", slowly)
    assert run("draw", ROOT / "docs" / "keyframes" / "demo_scene.json", "-o", path) == 1
    assert "holds moves.npz already" in capsys.readouterr().err and path.read_text() == "another's"


WRONG = {
    "no action": ([], 2, "required: draw|extract|preview"),
    "no such keyframes": (["draw", "absent.json", "-o", "{out}/m.npz"], 1, "absent.json is not there; expected keyfr"),
    "keyframes": (["draw", "{typo}", "-o", "{out}/m.npz"], 1, "unknown key 'frame'; did you mean 'frames'?"),
    "suffix": (["draw", "{typo}", "-o", "{out}/m.json"], 2, "expected a file that ends in .npz"),
    "there already": (["draw", "{typo}", "-o", "{moves}"], 1, "holds moves.npz already"),
    "no objects": (["extract", "{typo}", "-o", "{out}/m.npz"], 2, "0 objects are asked for; expected 1 to 12 of --ph"),
    "no source": (["extract", "absent.mp4", "-o", "{out}/m.npz"], 1, "absent.mp4 is not there; expected a video, or"),
    "folder with objects": (["extract", "{folder}", "--point", "1,2", "-o", "{out}/m.npz"], 2, "are for a video"),
    "box": (["extract", "a.mp4", "--box", "1,2,3", "-o", "{out}/m.npz"], 2, "'1,2,3' is not 4 numbers separated by"),
    "point": (["extract", "a.mp4", "--point", "1,nan", "-o", "{out}/m.npz"], 2, "'1,nan' is not 2 numbers"),
    "rate": (["extract", "a.mp4", "--fps", "0", "-o", "{out}/m.npz"], 2, "expected frames a second above 0"),
    "no trajectory": (["preview", "{typo}", "-o", "{out}"], 1, "is no trajectory, or is damaged; expected .npz"),
    "no image": (["preview", "{moves}", "-o", "{out}", "--image", "absent.png"], 1, "absent.png is not there"),
    "both": (["preview", "{moves}", "-o", "{out}", "--image", "a", "--video", "b"], 2, "not allowed with argument"),
    "short video": (["preview", "{moves}", "-o", "{out}", "--video", "{short}"], 1, "has 2 frames; expected at le"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line_before_any_model(
    run: Run, moves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    words, code, message = WRONG[case]
    (tmp_path / "typo.json").write_text('{"width": 8, "height": 8, "frame": 3, "objects": [{}]}')
    (tmp_path / "folder").mkdir()
    if case == "short video":
        write_video(tmp_path / "short.mp4", np.zeros((2, 24, 32, 3), np.uint8), 4)
    places = {"typo": tmp_path / "typo.json", "folder": tmp_path / "folder", "moves": moves, "out": tmp_path / "out",
              "short": tmp_path / "short.mp4"}  # fmt: skip
    assert run(*(word.format(**places) for word in words)) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""
    assert not (tmp_path / "out").exists()
