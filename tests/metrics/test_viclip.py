"""ViCLIP: public names and shapes, open_clip as an independent reference of both sides, both ways to prepare clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.metrics.clips import noise_clip
from ttm.metrics.scoring import Clip, Problem, Sample
from ttm.metrics.viclip import (
    IMAGENET,
    OPENAI_CLIP,
    ViCLIPFeatures,
    ViCLIPText,
    ViCLIPVideo,
    internvid_frames,
    load_viclip,
    vbench_frames,
    viclip_pixels,
)
from ttm.metrics.viclip_model import ViCLIP, ViCLIPShape

SMALL = ViCLIPShape(width=64, layers=2, heads=4, text_width=32, text_layers=2, text_heads=4, patch=56, features=16)


def public_names(shape: ViCLIPShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of OpenGVLab/ViCLIP-L-14-hf, written down from its published model code."""
    patches = (shape.side // shape.patch) ** 2
    yield "temp", ()
    for side, width, layers in (
        ("vision_encoder", shape.width, shape.layers),
        ("text_encoder", shape.text_width, shape.text_layers),
    ):
        for layer in range(layers):
            block = f"{side}.transformer.resblocks.{layer}"
            yield f"{block}.attn.in_proj_weight", (3 * width, width)
            yield f"{block}.attn.in_proj_bias", (3 * width,)
            yield f"{block}.attn.out_proj.weight", (width, width)
            yield f"{block}.attn.out_proj.bias", (width,)
            yield f"{block}.mlp.c_fc.weight", (4 * width, width)
            yield f"{block}.mlp.c_fc.bias", (4 * width,)
            yield f"{block}.mlp.c_proj.weight", (width, 4 * width)
            yield f"{block}.mlp.c_proj.bias", (width,)
            for norm in ("ln_1", "ln_2"):
                yield f"{block}.{norm}.weight", (width,)
                yield f"{block}.{norm}.bias", (width,)
    for norm in ("vision_encoder.ln_pre", "vision_encoder.ln_post", "text_encoder.ln_final"):
        width = shape.text_width if norm.startswith("text") else shape.width
        yield f"{norm}.weight", (width,)
        yield f"{norm}.bias", (width,)
    yield "vision_encoder.class_embedding", (shape.width,)
    yield "vision_encoder.positional_embedding", (patches + 1, shape.width)
    yield "vision_encoder.temporal_positional_embedding", (1, shape.num_frames, shape.width)
    yield "vision_encoder.proj", (shape.width, shape.features)
    yield "vision_encoder.conv1.weight", (shape.width, 3, 1, shape.patch, shape.patch)
    yield "text_encoder.token_embedding.weight", (shape.vocabulary, shape.text_width)
    yield "text_encoder.positional_embedding", (shape.text_length, shape.text_width)
    yield "text_encoder.text_projection", (shape.text_width, shape.features)


def random_state(shape: ViCLIPShape, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(size, generator=generator) for name, size in public_names(shape)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("viclip") / "model.safetensors"
    save_file(random_state(SMALL), path)
    return path


def test_the_public_weights_fit_at_their_full_size() -> None:
    """On the meta device: names and shapes of L/14, 0.43 billion parameters, strictly."""
    with torch.device("meta"):
        model = ViCLIP()
        state = {name: torch.empty(size) for name, size in public_names(ViCLIPShape())}
    model.load_state_dict(state, strict=True, assign=True)
    assert state["vision_encoder.conv1.weight"].shape == (1024, 3, 1, 14, 14)
    assert state["text_encoder.positional_embedding"].shape == (32, 768)
    assert 4.2e8 < sum(tensor.numel() for tensor in state.values()) < 4.4e8


def test_a_random_state_loads_strictly_and_other_weights_do_not(weights: Path, tmp_path: Path) -> None:
    state = load_viclip(weights, SMALL).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in random_state(SMALL).items())
    for fault, other in (
        ("Missing key", {name: value for name, value in state.items() if name != "vision_encoder.proj"}),
        ("Unexpected key", {**state, "vision_encoder.more": torch.zeros(1)}),
        ("size mismatch", {**state, "text_encoder.text_projection": torch.zeros(32, 17)}),
    ):
        save_file(other, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=f"{fault}.*OpenGVLab/ViCLIP-L-14-hf"):
            load_viclip(tmp_path / "model.safetensors", SMALL)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="expected the weights of|expected those of"):
        ViCLIPFeatures(tmp_path, shape=SMALL)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"ViCLIP: .* no model\.safetensors.*OpenGVLab/ViCLIP-L-14-hf"):
        ViCLIPFeatures(tmp_path)


def _open_clip_of(state: dict[str, Tensor]) -> torch.nn.Module:
    """open_clip's model with the same weights; its picture side sees one frame."""
    from open_clip.model import CLIP

    vision = {
        "image_size": SMALL.side,
        "layers": SMALL.layers,
        "width": SMALL.width,
        "head_width": SMALL.width // SMALL.heads,
        "patch_size": SMALL.patch,
    }
    text = {
        "context_length": SMALL.text_length,
        "vocab_size": SMALL.vocabulary,
        "width": SMALL.text_width,
        "heads": SMALL.text_heads,
        "layers": SMALL.text_layers,
    }
    model = CLIP(SMALL.features, vision, text, quick_gelu=True).eval()
    renamed = {
        name.replace("vision_encoder.", "visual.").replace("text_encoder.", ""): value for name, value in state.items()
    }
    renamed["visual.conv1.weight"] = renamed["visual.conv1.weight"][:, :, 0]
    known = model.state_dict()
    model.load_state_dict({name: value for name, value in renamed.items() if name in known}, strict=False)
    unread = set(renamed) - set(known)
    assert unread == {"temp", "visual.temporal_positional_embedding"}
    assert set(known) - set(renamed) <= {"logit_scale", "attn_mask"}
    return model


def test_texts_are_what_open_clip_says(weights: Path) -> None:
    texts = ["a red ball moves left", "", "Two dogs, one cat; ÉTÉ!", "word " * 60]
    network = ViCLIPFeatures(weights, shape=SMALL)
    from open_clip import SimpleTokenizer

    tokens = SimpleTokenizer(context_length=32)(texts)
    with torch.no_grad():
        expected = _open_clip_of(random_state(SMALL)).encode_text(tokens)  # type: ignore[operator]
    np.testing.assert_allclose(network.embed_texts(texts), expected.numpy(), atol=1e-5)
    assert [network.count_tokens(text) for text in ("", "word " * 60)] == [2, 62]


def test_one_frame_is_what_open_clip_says(weights: Path) -> None:
    """With one frame and no temporal position, ViCLIP is CLIP: only temporal attention tells them apart."""
    from dataclasses import replace

    state = random_state(SMALL)
    single = ViCLIP(replace(SMALL, num_frames=1))
    time = "vision_encoder.temporal_positional_embedding"
    single.load_state_dict({**state, time: torch.zeros(1, 1, SMALL.width)}, strict=True)
    pixels = torch.randn(2, 3, 1, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = _open_clip_of(state).encode_image(pixels[:, :, 0])  # type: ignore[operator]
        np.testing.assert_allclose(single.embed_clips(pixels).numpy(), expected.numpy(), atol=1e-5)


def test_the_order_of_frames_counts_through_their_positions_alone(weights: Path) -> None:
    model = load_viclip(weights, SMALL)
    pixels = torch.linspace(-2, 2, 8).view(1, 1, 8, 1, 1).expand(1, 3, 8, 224, 224)  # it brightens
    with torch.no_grad():
        model.vision_encoder.temporal_positional_embedding.mul_(20)
        with_positions = (model.embed_clips(pixels) - model.embed_clips(pixels.flip(2))).abs().max()
        model.vision_encoder.temporal_positional_embedding.zero_()
        without = (model.embed_clips(pixels) - model.embed_clips(pixels.flip(2))).abs().max()
    assert float(with_positions) > 1e-4 > 1e-6 > float(without)
    with pytest.raises(ValueError, match=r"expected \[B, 3, 8, 224, 224\]"):
        model.embed_clips(pixels[:, :, :7])


def test_which_frames_are_seen() -> None:
    assert internvid_frames(8) == list(range(8))
    assert internvid_frames(15) == list(range(8)), "15 // 8 = 1: the rest is not seen"
    assert internvid_frames(16) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert internvid_frames(128) == list(range(0, 128, 16))
    with pytest.raises(ValueError, match="7 frames"):
        internvid_frames(7)
    assert vbench_frames(16) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert vbench_frames(128) == [7, 23, 39, 55, 71, 87, 103, 119]
    assert vbench_frames(8) == list(range(8))
    assert vbench_frames(3) == [0, 1, 2, 2, 2, 2, 2, 2]
    assert vbench_frames(1) == [0] * 8


def test_how_frames_are_seen() -> None:
    """A wide picture, black at both ends: squashed it keeps them, cut it loses them."""
    frames = np.full((8, 224, 448, 3), 255, np.uint8)
    frames[:, :, :60] = frames[:, :, -60:] = 0
    for preparation, (mean, std) in (("internvid", IMAGENET), ("vbench", OPENAI_CLIP)):
        pixels = viclip_pixels(frames, preparation)  # type: ignore[arg-type]
        assert pixels.shape == (3, 8, 224, 224)
        for channel in range(3):
            white = (1 - mean[channel]) / std[channel]
            assert float(pixels[channel].max()) == pytest.approx(white, abs=1e-5)
            darkest = -mean[channel] / std[channel] if preparation == "internvid" else white
            assert float(pixels[channel].min()) == pytest.approx(darkest, abs=1e-5)
    with pytest.raises(ValueError, match="preparation is 'other'"):
        ViCLIPFeatures("nowhere", preparation="other")  # type: ignore[arg-type]


def test_vbench_takes_odd_sizes_and_few_frames() -> None:
    for size in ((100, 333), (333, 100), (225, 224)):
        assert viclip_pixels(noise_clip(0, frames=3, size=size).frames, "vbench").shape == (3, 8, 224, 224)


def test_figures_are_cosines(weights: Path) -> None:
    network = ViCLIPFeatures(weights, shape=SMALL)
    clips = [noise_clip(n, frames=9, size=(32, 48)) for n in range(2)]
    videos, (text,) = network.extract(clips), network.embed_texts(["a ball"])

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    of_text, of_video = ViCLIPText(network, network), ViCLIPVideo(network, network)
    pair = [Sample("x", clips[0], clips[1], "a ball")]
    assert of_text.add(pair) == [pytest.approx(cosine(videos[0], text), abs=1e-5)]
    assert of_video.add(pair) == [pytest.approx(cosine(videos[0], videos[1]), abs=1e-5)]
    assert of_video.add([Sample("same", clips[0], clips[0])]) == [pytest.approx(1.0)]
    assert of_text.figure().convention["preparation"] == "internvid" and of_text.figure().warnings == ()
    of_text.add([Sample("long", clips[0], prompt="word " * 60)])
    assert of_text.figure().warnings == ("1 prompts are longer than 32 tokens; the rest of them was not read",)


def test_what_cannot_be_compared_is_a_problem(weights: Path) -> None:
    network = ViCLIPFeatures(weights, shape=SMALL)
    metric = ViCLIPVideo(network, network)
    video = noise_clip(0, frames=9)
    others = {
        "frames: the video has 9, its reference 10": noise_clip(1, frames=10),
        "size: the video has 16 x 24, its reference 24 x 16": Clip(video.frames.reshape(9, 24, 16, 3), 8.0),
        "frames a second: the video has 8, its reference 24": Clip(video.frames, 24.0),
    }
    for reason, reference in others.items():
        assert metric.add([Sample("x", video, reference)]) == [Problem(reason)]
    assert metric.add([Sample("x", video)]) == [Problem("it has no reference")]
    short = noise_clip(0, frames=7)
    (score,) = metric.add([Sample("x", short, short)])
    assert isinstance(score, Problem) and "7 frames" in score.reason
    assert metric.figure().value is None
