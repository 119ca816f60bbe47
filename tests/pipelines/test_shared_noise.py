from __future__ import annotations

import numpy as np
import pytest
import torch

from ttm.pipelines.colour_matching import match_frame_histograms, match_latent_statistics
from ttm.pipelines.shared_noise import mixture_variance, share_first_frame


def draw(seed: int = 0, frames: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Own noise and a shared latent of many places, so that sample statistics are close to the true ones."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 4, frames, 128, 128, generator=generator)
    return noise, torch.randn(1, 4, 1, 128, 128, generator=generator)


@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("renormalise", [False, True])
def test_variance_and_correlation_are_those_of_the_closed_form(ratio: float, renormalise: bool) -> None:
    noise, shared = draw()
    mixed = share_first_frame(noise, shared, ratio, renormalise)
    variance = 1.0 if renormalise else ratio**2 + (1 - ratio) ** 2
    correlation = ratio**2 / (ratio**2 + (1 - ratio) ** 2)
    assert float(mixed.var()) == pytest.approx(variance, abs=0.01)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        pair = torch.stack([mixed[:, :, first].flatten(), mixed[:, :, second].flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(correlation, abs=0.01)
    with_shared = torch.stack([mixed[:, :, 0].flatten(), shared.flatten()])
    assert float(torch.corrcoef(with_shared)[0, 1]) == pytest.approx(correlation**0.5, abs=0.01)


def test_the_papers_ratio_has_a_variance_of_two_thirds() -> None:
    assert mixture_variance(0.2) == pytest.approx(0.68)


def test_the_ends_of_the_ratio() -> None:
    noise, shared = draw()
    assert torch.equal(share_first_frame(noise, shared, 0.0), noise)
    assert torch.equal(share_first_frame(noise, shared, 1.0), shared.expand_as(noise))


def test_every_frame_may_have_a_latent_of_its_own() -> None:
    noise, shared = draw()
    each = torch.cat([shared, -shared, 2 * shared], dim=2)
    mixed = share_first_frame(noise, each, 0.2)
    for frame in range(3):
        alone = share_first_frame(noise[:, :, frame : frame + 1], each[:, :, frame : frame + 1], 0.2)
        assert torch.equal(mixed[:, :, frame : frame + 1], alone)


def test_renormalising_only_scales() -> None:
    noise, shared = draw()
    plain, unit = (share_first_frame(noise, shared, 0.2, flag) for flag in (False, True))
    torch.testing.assert_close(unit, plain / 0.68**0.5)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan"), "0.2", True])
def test_a_ratio_out_of_range(ratio: object) -> None:
    noise, shared = draw(frames=1)
    with pytest.raises(ValueError, match="sharing_ratio"):
        share_first_frame(noise, shared, ratio)  # type: ignore[arg-type]


def test_a_shared_latent_of_another_shape() -> None:
    noise, shared = draw()
    with pytest.raises(ValueError, match=r"expected \[B, Z, T, h, w\] and \[B, Z, 1 or T, h, w\]"):
        share_first_frame(noise, shared[..., :64])


def test_latents_take_on_the_first_frames_statistics() -> None:
    noise, shared = draw()
    latents = noise * torch.tensor([3.0, 0.5, 1.0]).view(1, 1, 3, 1, 1) + 2
    matched = match_latent_statistics(latents, shared)
    for frame in range(3):
        torch.testing.assert_close(matched[:, :, frame].mean((-2, -1)), shared[:, :, 0].mean((-2, -1)))
        spread = shared[:, :, 0].std((-2, -1), correction=0)
        torch.testing.assert_close(matched[:, :, frame].std((-2, -1), correction=0), spread)
    torch.testing.assert_close(match_latent_statistics(shared, shared), shared)
    assert match_latent_statistics(torch.ones_like(noise), shared).isfinite().all()
    with pytest.raises(ValueError, match="expected"):
        match_latent_statistics(latents, shared[:, :2])


def test_frames_take_on_the_first_frames_histogram() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(40, 200, (32, 32, 3)).astype(np.uint8)
    darker = rng.permuted((first // 2).reshape(-1, 3), axis=0).reshape(first.shape)
    matched = match_frame_histograms(np.stack([first, darker, first]))
    assert np.array_equal(matched[0], first) and np.array_equal(matched[2], first)
    for channel in range(3):
        found, wanted = (np.sort(frame[..., channel].ravel()).astype(int) for frame in (matched[1], first))
        assert np.abs(found - wanted).mean() < 2
    with pytest.raises(ValueError, match="uint8"):
        match_frame_histograms(np.zeros((2, 4, 4, 3)))
