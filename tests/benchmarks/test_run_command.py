"""What is written after ``python -m benchmarks.run``: suites by name or folder, texts with spaces, settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from benchmarks.manifest import Sample, SampleSuite
from benchmarks.run import SUITES, as_overrides
from benchmarks.suite_run import first_samples, open_suite


def composed(*words: str) -> DictConfig:
    """The configuration of a command line. Importing sam2 leaves hydra set up: that is cleared, and put back."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(SUITES.parent), version_base=None):
            return compose("benchmark", as_overrides(words))
    finally:
        if before is not None:
            GlobalHydra.instance().initialize(before)


def test_a_suite_by_its_name_or_its_folder() -> None:
    assert as_overrides(["suite=SA-V-128"]) == ["suite=sa_v_128"]
    assert as_overrides(["suite=synthetic", "scenes=2"]) == ["suite=synthetic", "scenes=2"]
    assert as_overrides(["suite=a/b"]) == ["suite=folder", "suite.folder=a/b"]
    assert as_overrides(["-m", "shard=0/3,1/3"]) == ["-m", "shard=0/3,1/3"]
    assert composed().suite.name == "synthetic" and "folder" not in composed().suite
    for name in ("synthetic-128", "SA-V-128", "Image-Animation-Bench", "few-shot"):
        assert composed(f"suite={name}").suite.name == name


@pytest.mark.parametrize("path", ["/tmp/my videos/Hündin 犬", "it's (new), [old]", 'a "b" c', "a=b,c", "plain"])
def test_any_path_and_name_reach_the_program(path: str) -> None:
    config = composed(f"suite={path}", f"videos={path}", f"output={path}", f"name={path}", "shard=1/3")
    assert [config.suite.folder, config.videos, config.output, config.name] == [path] * 4
    assert config.shard == "1/3"


def test_lists_and_nulls_stay_what_they_are() -> None:
    config = composed("suite=x", "score.metrics=[fvd,cf-adjacent]", "limit=3", "compare=[a,b]", "videos=null")
    assert list(config.score.metrics) == ["fvd", "cf-adjacent"] and config.limit == 3
    assert list(config.compare) == ["a", "b"] and config.videos is None


def test_the_first_samples_of_each_split() -> None:
    samples = tuple(Sample(f"{split}{n}", "x", split=split) for split in ("single", "multi") for n in range(3))
    suite = SampleSuite("s", samples)
    assert [sample.id for sample in first_samples(suite, 2)] == ["single0", "single1", "multi0", "multi1"]
    assert first_samples(suite, None) == list(samples)
    with pytest.raises(ValueError, match="at least 1"):
        first_samples(suite, 0)


def test_the_synthetic_suite_is_made_where_it_is_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        f"suite.folder={tmp_path / 'suite'}",
        "suite.build.scenes=2",
        "suite.build.size=64",
        "suite.build.num_frames=5",
    ]
    settings = composed("suite=synthetic-128", *words).suite
    assert [sample.id for sample in open_suite(settings).samples] == ["single-000", "multi-000"]
    assert "making 2 scenes" in capsys.readouterr().out
    assert open_suite(settings).name == "synthetic-128" and capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"was made with .*'size': 64.*; expected .*'size': 32"):
        open_suite(composed("suite=synthetic-128", *words, "suite.build.size=32").suite)
    with pytest.raises(FileNotFoundError, match="no manifest"):
        open_suite(composed(f"suite={tmp_path}").suite)
