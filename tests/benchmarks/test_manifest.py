"""A suite's manifest: what is read, and what is refused before any model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.manifest import load_suite, write_manifest

PLAN = {
    "prompt": "The ball rolls.",
    "motion_prompt": "the ball rolls",
    "objects": [{"phrase": "ball", "local_prompt": "the ball rolls"}],
}


def entry(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "image": "a.png", "prompt": "The ball rolls.", **changes}


def write(folder: Path, *entries: Any) -> Path:
    (folder / "manifest.jsonl").write_text("\n".join(json.dumps(item) for item in entries) + "\n", encoding="utf-8")
    return folder


def test_every_field_comes_back(tmp_path: Path) -> None:
    more = {"masks": "m.png", "trajectory": "t/t.npz", "reference": "r.mp4", "category": "animals", "split": "single"}
    full = entry(id="Hund läuft 犬", plan=PLAN, motions=["right"], **more)
    write_manifest(tmp_path, [full, entry(id="b", image=None, video="b.mp4")])
    suite = load_suite(tmp_path)
    first, second = suite.samples
    assert suite.name == tmp_path.name and suite.splits == ["single"]
    assert first.id == "Hund läuft 犬" and first.plan is not None and first.plan.to_dict() == PLAN
    assert first.trajectory == tmp_path / "t/t.npz" and first.motions == ("right",) and first.category == "animals"
    assert second.video == tmp_path / "b.mp4" and second.image is None and second.reference is None
    assert sorted(path.name for path in first.files) == ["a.png", "m.png", "r.mp4", "t.npz"]


def test_json_with_a_name_and_a_plan_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "mine", "samples": [entry(plan="plan.json")]}))
    suite = load_suite(tmp_path / "manifest.json")
    assert suite.name == "mine" and suite.samples[0].plan is not None
    assert load_suite(tmp_path, "other").name == "other"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (entry(image="/etc/passwd"), "inside of it"),
        (entry(image="../a.png"), "inside of it"),
        (entry(image="x/../../a.png"), "inside of it"),
        (entry(image="C:/a.png"), "inside of it"),
        (entry(image=7), "expected a text"),
        (entry(video="a.mp4"), "one of both"),
        (entry(image=None), "one of both"),
        (entry(prompt=" "), "no prompt"),
        ({"id": "a", "image": "a.png"}, "no prompt"),
        (entry(promt="typo"), "unknown keys"),
        (entry(id="a/b"), "name a folder"),
        (entry(id=".hidden"), "name a folder"),
        (entry(id=""), "name a folder"),
        (entry(id="a\nb"), "name a folder"),
        (entry(motions=["left"]), "one for each object"),
        (entry(plan=PLAN, motions=["leftwards"]), "expected a list of some"),
        (entry(plan={"prompt": "x"}), "plan can't be read"),
        (entry(plan="missing.json"), "plan can't be read"),
        ([1], "expected an object"),
    ],
)
def test_a_wrong_entry_is_named_with_its_line(tmp_path: Path, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_suite(write(tmp_path, entry(id="first"), wrong))
    assert "line 2" in str(caught.value)


def test_a_sequence_of_masks_needs_no_image(tmp_path: Path) -> None:
    (sample,) = load_suite(write(tmp_path, entry(image=None, trajectory="t.npz"))).samples
    assert sample.image is None and sample.files == [tmp_path / "t.npz"]


def test_two_samples_of_one_id(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        load_suite(write(tmp_path, entry(id="Straße"), entry(id="STRASSE")))


def test_no_manifest_no_sample_no_json(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no manifest"):
        load_suite(tmp_path)
    (tmp_path / "manifest.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no sample"):
        load_suite(tmp_path)
    (tmp_path / "manifest.jsonl").write_text("{'id'")
    with pytest.raises(ValueError, match="does not hold JSON"):
        load_suite(tmp_path)


def test_nothing_is_written_of_a_wrong_manifest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sample 2"):
        write_manifest(tmp_path, [entry(), entry(id="b", image="../x")])
    assert list(tmp_path.iterdir()) == []
