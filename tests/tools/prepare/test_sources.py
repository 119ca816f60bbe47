"""What is found in a folder, and what is said of what can't be used."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.prepare.sources import Source, find_sources, opened


def archive(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_everything_of_a_folder_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b.MP4", "a/c.webm", "a/.hidden.mp4", ".git/x.mp4", "a/c.masks.mp4", "d.masks/0.mp4", "note.md")
    touch(tmp_path, "val/JPEGImages_24fps/v1/00000.jpg", "val/Annotations_6fps/v1/000/00000.png")
    touch(tmp_path, "val/JPEGImages_24fps/v2/00000.jpg")
    archive(tmp_path / "sav_000.tar", {"sav/x.mp4": b"video", "sav/x_manual.json": b"{}", "sav/x_auto.json": b"[]"})
    found = find_sources(tmp_path)
    assert [source.name for source in found] == [
        "a/c.webm", "b.MP4", "sav_000.tar/sav/x.mp4", "val/JPEGImages_24fps/v1", "val/JPEGImages_24fps/v2",
    ]  # fmt: skip
    kinds = [source.masks_kind for source in found]
    assert kinds == ["trajectory", "", "sa_v", "sa_v", ""]
    assert [source.masks and source.masks.path for source in found][0] == "a/c.masks.mp4"
    for source in found:
        assert Source.from_dict(json.loads(json.dumps(source.to_dict()))) == source


def test_parts_of_an_archive_are_read_where_they_lie(tmp_path: Path) -> None:
    archive(tmp_path / "a.tar", {"x.mp4": b"the video", "x_manual.json": b"manual", "x_auto.json": b"auto"})
    for masklets in ("manual", "auto"):
        (source,) = find_sources(tmp_path, masklets)
        assert source.masks is not None
        with opened(tmp_path, source.video) as video, opened(tmp_path, source.masks) as masks:
            assert (video.read_bytes(), video.suffix) == (b"the video", ".tar")
            assert masks.read_bytes() == masklets.encode()
        assert not video.exists()
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:515])
    with pytest.raises(ValueError, match="a.tar is cut off: 6 of 9 bytes"):
        with opened(tmp_path, source.video):
            pass


def test_captions_and_plans_beside_a_video(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "prompts.yaml").write_text("a.mp4: A ball rolls.\nb.mp4: {prompt: A cat runs., phrases: [grey cat]}\n")
    (tmp_path / "a.txt").write_text(" The red ball rolls. \n")
    (tmp_path / "c.plan.json").write_text('{"prompt": "x"}')
    a, b, c = find_sources(tmp_path)
    assert (a.caption, b.caption, c.caption) == ("The red ball rolls.", "A cat runs.", None)
    assert b.phrases == ("grey cat",) and c.plan == {"prompt": "x"}


@pytest.mark.parametrize("name", ["../../out.mp4", "/etc/out.mp4", "sav/../../out.mp4"])
def test_an_archive_that_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    archive(tmp_path / "in/a.tar", {name: b"evil", "sav/good.mp4": b"good"}, {"sav/link.mp4": "/etc/passwd"})
    wrong = {source.name: source.wrong for source in find_sources(tmp_path / "in")}
    assert wrong.pop("a.tar/sav/good.mp4") == ""
    assert len(wrong) == 2 and any("leads out of its folder" in told for told in wrong.values())
    assert any("is a link" in told for told in wrong.values())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "in"]


def test_archives_that_can_not_be_read(tmp_path: Path) -> None:
    whole = archive(tmp_path / "cut.tar", {"a.mp4": b"a" * 2000, "b.mp4": b"b" * 2000}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:3500])
    touch(tmp_path, "x.tar.gz", "none.tar")
    wrong = {source.name: source.wrong for source in find_sources(tmp_path)}
    assert wrong.pop("cut.tar/a.mp4") == ""
    assert "cut off" in wrong.pop("cut.tar") and "compressed" in wrong.pop("x.tar.gz")
    assert "damaged" in wrong.pop("none.tar") and not wrong.keys() - {"cut.tar/b.mp4"}


def test_what_lies_beside_a_video_may_be_wrong(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.npz", "a.masks.mp4", "b/x.mp4", "c/x.mp4")
    (tmp_path / "b/prompts.yaml").write_text("[")
    (tmp_path / "c/prompts.yaml").write_text("x.mp4: {prompt: A ball rolls., masks: ../../a.npz}")
    a, b, c = find_sources(tmp_path)
    assert "expected one of them" in a.wrong and "no YAML" in b.wrong and "outside of" in c.wrong


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{prompt: A dog runs., phrases: dog}", "x.mp4: phrases is 'dog'; expected a list of texts"),
        ("{prompt: A dog runs., phrases: 5}", "x.mp4: phrases is 5; expected a list of texts"),
        ("{prompt: A dog runs., phrases: [dog, 5]}", "expected a list of texts"),
        ("{prompt: A dog runs., phrase: [dog]}", "x.mp4 has the key 'phrase'; expected some of prompt, phrases, masks"),
        ("{prompt: A dog runs., masks: 5}", "x.mp4: masks is 5; expected the path"),
        ("[A dog runs.]", "caption of x.mp4 is .*; expected a text"),
    ],
)
def test_entries_of_prompts_that_are_none(tmp_path: Path, line: str, told: str) -> None:
    touch(tmp_path, "x.mp4", "y.mp4")
    (tmp_path / "prompts.yaml").write_text(f"x.mp4: {line}\ny.mp4: A cat runs.")
    x, y = find_sources(tmp_path)
    assert re.search(told, x.wrong) and (y.wrong, y.caption) == ("", "A cat runs.")


@pytest.mark.parametrize("name", ["z.mp4", "/z.mp4"])
def test_prompts_of_no_video(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "x.mp4")
    (tmp_path / "prompts.yaml").write_text(f"{name}: A dog runs.\nx.mp4: A cat runs.")
    strange, x = find_sources(tmp_path)
    assert f"names {name!r}, which is no video" in strange.wrong and (x.wrong, x.caption) == ("", "A cat runs.")


def test_nothing_to_prepare(tmp_path: Path, add_video: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        find_sources(tmp_path / "missing")
    with pytest.raises(ValueError, match="holds no video"):
        find_sources(tmp_path)
