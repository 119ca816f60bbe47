"""Features kept by content: computed once, found again by another process's instance, never wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.metrics.clips import Broken, MeanColour, noise_clip
from ttm.metrics.features import KeptFeatures
from ttm.metrics.scoring import Clip


def test_a_clip_passes_through_the_network_once(tmp_path: Path) -> None:
    network = MeanColour()
    kept = KeptFeatures(network, tmp_path)
    clips = [noise_clip(0), noise_clip(1), noise_clip(0)]
    first = kept.extract(clips)
    assert network.asked == 2, "equal frames are one clip"
    np.testing.assert_array_equal(first[0], first[2])
    again = MeanColour()
    found = KeptFeatures(again, tmp_path).extract(clips)
    assert again.asked == 0
    np.testing.assert_array_equal(np.stack(found), np.stack(first))


def test_nothing_else_is_taken_for_it(tmp_path: Path) -> None:
    clip = noise_clip(0)
    KeptFeatures(MeanColour(), tmp_path).extract([clip])
    pixel = clip.frames.copy()
    pixel[-1, -1, -1, -1] ^= 1
    turned = Clip(np.ascontiguousarray(clip.frames.reshape(12, 24, 16, 3)), clip.fps)
    for network, other in ((MeanColour("another way"), clip), (MeanColour(), Clip(pixel, 8.0)), (MeanColour(), turned)):
        KeptFeatures(network, tmp_path).extract([other])
        assert network.asked == 1


def test_memory_holds_a_few_and_no_folder_keeps_nothing(tmp_path: Path) -> None:
    network = MeanColour()
    kept = KeptFeatures(network, None, at_hand=2)
    for n in (0, 1, 0, 2, 0, 1):
        kept.extract([noise_clip(n)])
    assert network.asked == 4, "clip 1 was forgotten, clip 0 was not"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{}", b"not safetensors at all, but long enough"])
def test_a_damaged_file_costs_one_computation(tmp_path: Path, content: bytes) -> None:
    KeptFeatures(MeanColour(), tmp_path).extract([noise_clip(0)])
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(content)
    network = MeanColour()
    KeptFeatures(network, tmp_path).extract([noise_clip(0)])
    KeptFeatures(network, tmp_path).extract([noise_clip(0)])
    assert network.asked == 1


def test_a_folder_that_cannot_be_written_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    network = MeanColour()
    kept = KeptFeatures(network, tmp_path / "file", at_hand=1)
    for n in (0, 1, 0):
        assert len(kept.extract([noise_clip(n)])) == 1
    assert network.asked == 3 and [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Features are not kept for next time" in caplog.text


def test_features_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    black = Clip(np.zeros((2, 4, 4, 3), np.uint8), 8.0)
    (value,) = KeptFeatures(Broken(), tmp_path).extract([black])
    assert not np.isfinite(value).any()
    assert list(tmp_path.rglob("*.safetensors")) == []
