"""CF and Alignment: the figures against slow references, a real CLIP of transformers at a tiny size, the foreground."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from tests.metrics.clips import Broken, noise_clip
from ttm.metrics.clip import Alignment, ClipFeatures, FrameConsistency, frame_consistency, text_alignment
from ttm.metrics.foreground import FILL, foreground_clip
from ttm.metrics.scoring import Clip, Problem, Sample


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_consistency_is_the_mean_over_pairs() -> None:
    features = np.random.default_rng(0).normal(0.3, 1, size=(7, 5)).astype(np.float32)
    pairs = [_cosine(one, other) for one, other in itertools.combinations(features, 2)]
    adjacent = [_cosine(one, other) for one, other in itertools.pairwise(features)]
    assert frame_consistency(features, "all pairs") == pytest.approx(np.mean(pairs), abs=1e-6)
    assert frame_consistency(features, "adjacent") == pytest.approx(np.mean(adjacent), abs=1e-6)
    assert frame_consistency(np.repeat(features[:1], 4, axis=0), "all pairs") == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 2 frames"):
        frame_consistency(features[:1], "adjacent")


def test_there_and_back_again_tells_the_two_apart() -> None:
    """Frames that alternate: adjacent ones are never alike, every second one is."""
    features = np.array([[1.0, 0.0], [0.0, 1.0]] * 3)
    assert frame_consistency(features, "adjacent") == pytest.approx(0.0)
    assert frame_consistency(features, "all pairs") == pytest.approx(6 / 15)


def test_alignment_is_the_mean_over_frames() -> None:
    rng = np.random.default_rng(1)
    frames, text = rng.normal(size=(6, 4)), rng.normal(size=4)
    assert text_alignment(frames, text) == pytest.approx(np.mean([_cosine(frame, text) for frame in frames]))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of transformers with random weights, as its folders are."""
    folder = tmp_path_factory.mktemp("clip")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    text = {"vocab_size": len(words), "max_position_embeddings": 12, "eos_token_id": len(words) - 1}
    vision = {"image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config={**tower, **text}, vision_config={**tower, **vision}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def test_a_clip_of_transformers_embeds_frames_and_texts(clip_folder: Path) -> None:
    network = ClipFeatures(clip_folder)
    clips = [noise_clip(0, frames=70, size=(40, 60)), noise_clip(1, frames=3, size=(33, 32))]  # 73: more than a batch
    many, few = network.extract(clips)
    assert many.shape == (70, 16) and few.shape == (3, 16)
    (alone,) = network.extract([Clip(clips[0].frames[65:66], 8.0)])
    np.testing.assert_allclose(many[65], alone[0], atol=1e-5)
    texts = network.embed_texts(["a ball", "b", "a longer text than twelve tokens"])
    assert texts.shape == (3, 16)
    np.testing.assert_allclose(texts[1], network.embed_texts(["b"])[0], atol=1e-5, err_msg="padding changes nothing")
    assert network.count_tokens("ab c") == 5
    assert len(network.weights["sha256"]) == 64 and "CLIPImageProcessor" in network.convention["pixels"]
    assert network.extract([]) == []


def test_weights_of_half_precision_are_computed_with_in_single(clip_folder: Path, tmp_path: Path) -> None:
    half, whole = (shutil.copytree(clip_folder, tmp_path / name) for name in ("half", "whole"))
    model = CLIPModel.from_pretrained(clip_folder).half()
    model.save_pretrained(half)
    model.float().save_pretrained(whole)
    clip = noise_clip(0, frames=3)
    ours, expected = ClipFeatures(half), ClipFeatures(whole)
    np.testing.assert_allclose(ours.extract([clip])[0], expected.extract([clip])[0], atol=1e-5)
    np.testing.assert_allclose(ours.embed_texts(["a ball"]), expected.embed_texts(["a ball"]), atol=1e-5)
    assert "float32" in ours.convention["features"], "features that were kept in half precision are not taken again"


def test_the_metrics_on_a_real_network(clip_folder: Path) -> None:
    network = ClipFeatures(clip_folder)
    samples = [Sample(f"{n}", noise_clip(n, frames=4), prompt=prompt) for n, prompt in enumerate(("a ball", "b " * 30))]
    frames, texts = network.extract([s.video for s in samples if s.video]), network.embed_texts(["a ball", "b " * 30])
    alignment, consistency = Alignment(network, network), FrameConsistency(network, "adjacent", suffix="-tiny")
    expected = [text_alignment(frame, text) for frame, text in zip(frames, texts, strict=True)]
    assert alignment.add(samples) == [pytest.approx(value) for value in expected]
    figure = alignment.figure()
    assert figure.value == pytest.approx(np.mean(expected)) and figure.num_videos == 2
    assert figure.interval is not None and figure.interval.low <= figure.interval.high
    assert "1 prompts are longer than 12 tokens" in figure.warnings[0]
    assert consistency.add(samples) == [pytest.approx(frame_consistency(frame, "adjacent")) for frame in frames]
    assert consistency.name == "CF-adjacent-tiny" and consistency.figure().convention["pairs"].startswith("adjacent")
    assert alignment.add([Sample("x", samples[0].video)]) == [Problem("it has no prompt")]
    assert consistency.add([Sample("x", noise_clip(0, frames=1))]) == [Problem("1 frame; at least 2 needed")]
    assert consistency.figure().num_videos == 2


def test_a_folder_that_lacks_a_file_says_which(clip_folder: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "preprocessor_config.json", "merges.txt"):
        part = tmp_path / name.split(".")[0]
        shutil.copytree(clip_folder, part)
        (part / name).unlink()
        with pytest.raises(ValueError, match=rf"CLIP: .* has no {name}.*openai/clip-vit-large-patch14"):
            ClipFeatures(part)
    broken = tmp_path / "broken"
    shutil.copytree(clip_folder, broken)
    (broken / "config.json").write_text("{")
    with pytest.raises(ValueError, match="can't be opened"):
        ClipFeatures(broken)


def test_features_that_are_not_finite_make_no_figure() -> None:
    class PerFrame(Broken):
        def extract(self, clips):  # type: ignore[no-untyped-def]
            return [np.stack([value] * 3) for value in super().extract(clips)]

    black = Clip(np.zeros((3, 8, 8, 3), np.uint8), 8.0)
    metric = FrameConsistency(PerFrame(), "all pairs")
    good, bad = metric.add([Sample("good", noise_clip(0)), Sample("bad", black)])
    assert good == pytest.approx(1.0) and isinstance(bad, Problem) and "not finite" in bad.reason
    assert metric.figure().num_videos == 1 and metric.figure().value == pytest.approx(1.0)


def test_the_foreground_is_cut_out_and_the_rest_is_clip_s_grey() -> None:
    frames = np.full((3, 40, 60, 3), 200, np.uint8)
    ids = np.zeros((3, 40, 60), np.uint8)
    ids[0, 10:30, 20:40] = 1  # a square: nothing but foreground
    ids[2, 5:15, 0:40] = 2  # four times as wide as high: grey above and below
    found = foreground_clip(Clip(frames, 8.0), ids)
    assert found.frames.shape == (2, 224, 224, 3), "frame 1 shows none and is left out"
    assert (found.frames[0] == 200).all()
    assert (found.frames[1][:70] == FILL).all() and (found.frames[1][-70:] == FILL).all()
    assert (found.frames[1][100:124] == 200).all()
    ids[0, 15:25, 25:35] = 0
    hole = foreground_clip(Clip(frames, 8.0), ids).frames[0]
    assert (hole[112, 112] == FILL).all() and (hole[0, 0] == 200).all()


def test_a_foreground_that_is_not_there_is_a_problem() -> None:
    metric = FrameConsistency(Broken(), "adjacent", foreground=True)
    video = noise_clip(0, frames=3)
    ids = np.zeros((3, 16, 24), np.uint8)
    for given, said in ((None, "no ids"), (ids[:2], "expected [3, 16, 24]"), (ids, "0 frames show foreground")):
        (score,) = metric.add([Sample("x", video, ids=given)])
        assert isinstance(score, Problem) and said in score.reason
    with pytest.raises(ValueError, match="no foreground"):
        foreground_clip(video, ids)
    assert metric.name == "CF-adjacent-foreground"
