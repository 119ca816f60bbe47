"""The command line is tested with the pipelines' own tiny random pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipelines.conftest import host, image, make_pipeline, masks, plan, prompt  # noqa: F401  # fixtures
from ttm.cli import generate, main, segment
from ttm.pipelines.image_to_video import Pipeline


@pytest.fixture
def pipe(make_pipeline: Callable[..., Pipeline]) -> Pipeline:  # noqa: F811
    return make_pipeline(with_segmenter=True)


@pytest.fixture
def picture(tmp_path: Path, image: np.ndarray) -> str:  # noqa: F811
    """The path of an image with a red and a blue square."""
    Image.fromarray(image).save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


@pytest.fixture
def ttm(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command line with the tiny pipeline in the place of whatever ``--model`` names."""
    monkeypatch.setattr(generate, "load_pipeline", lambda *_: pipe)
    monkeypatch.setattr(segment, "load_pipeline", lambda *_: pipe)
    return lambda *words: main([str(word) for word in words])


@pytest.fixture
def forbidden_ttm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command line that must fail before any model is loaded."""

    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(generate, "load_pipeline", load)
    monkeypatch.setattr(segment, "load_pipeline", load)
    return lambda *words: main([str(word) for word in words])
