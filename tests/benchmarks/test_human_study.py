"""The human study over real HTTP: blind, in random order and side, kept, resumed, counted."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.human_study import main, make_pairs, prompts_of
from benchmarks.study import QUESTIONS, SIDES, Pair, Study, load_study, served_alone
from benchmarks.study_results import Preference, as_csv, preferences
from benchmarks.study_server import make_server

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = {f"sample {n}": f"The <ball> rolls & turns {n}." for n in range(4)}


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = []
    for name in ("OurMethod", "Baseline1", "Baseline2"):
        (tmp_path / name).mkdir()
        for sample in PROMPTS:
            (tmp_path / name / f"{sample}.mp4").write_bytes(f"{name} {sample}".encode() * 10)
        made.append(tmp_path / name)
    return made


@contextmanager
def served(study: Study, videos: dict[str, dict[str, Path]]) -> Iterator[str]:
    with make_server(study, lambda sample, method: videos[method][sample]) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def get(address: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers or {})) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def post(address: str, **form: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{address}/answer", urllib.parse.urlencode(form).encode()) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def rate(address: str, rater: str, prefers: bytes, most: int = 99) -> int:
    """Answer what is shown, always for the videos whose content begins with ``prefers``; returns how many."""
    for count in range(most):
        _, _, body = get(f"{address}/rate?rater={urllib.parse.quote(rater)}")
        page = body.decode()
        key = re.search(r'name="pair" value="([0-9a-f]+)"', page)
        if key is None:
            assert "Thank you" in page
            return count
        sources = re.findall(r'<video src="([^"]+)"', page)
        shown = {side: get(address + source)[2] for side, source in zip(SIDES, sources, strict=True)}
        choice = next((side for side in SIDES if shown[side].startswith(prefers)), "A")
        status, _ = post(address, rater=rater, pair=key[1], **dict.fromkeys(QUESTIONS, choice))
        assert status == 200
    return most


def new_study(folder: Path, folders: list[Path], raters: int = 3) -> tuple[Study, dict[str, dict[str, Path]]]:
    pairs, videos = make_pairs(folders, PROMPTS, None, 0)
    return Study(folder / "study", pairs, seed=3, raters=raters), videos


def test_raters_answer_and_the_majority_is_counted(tmp_path: Path, folders: list[Path]) -> None:
    study, videos = new_study(tmp_path, folders)
    with served(study, videos) as address:
        assert rate(address, "Ada", b"OurMethod") == 8
        assert rate(address, "Børge 2", b"OurMethod") == 8
        assert rate(address, "Chen", b"Baseline") == 8
        assert rate(address, "late", b"Baseline") == 0, "every pair has its three answers"
    found = preferences(study)
    assert [(item.against, item.question) for item in found] == [
        (other, question) for other in ("Baseline1", "Baseline2") for question in QUESTIONS
    ]
    assert all((item.won, item.pairs, item.incomplete, item.unanimous) == (4, 4, 0, 0) for item in found)
    table = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert table[0]["ours"] == "OurMethod" and table[0]["preferred_percent"] == "100.0"
    assert float(table[0]["low_percent"]) == pytest.approx(51.0, abs=0.1) and table[0]["high_percent"] == "100.0"


def test_the_interval_is_wilsons() -> None:
    item = Preference("a", "b", "text", won=7, pairs=10, incomplete=0, unanimous=0)
    n, p, z = 10, 0.7, 1.959964
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5 / (1 + z * z / n)
    assert item.interval == pytest.approx((middle - half, middle + half), abs=1e-5)
    assert Preference("a", "b", "text", 0, 0, 3, 0).interval is None


def test_a_browser_is_told_no_method_and_no_file(tmp_path: Path, folders: list[Path]) -> None:
    study, videos = new_study(tmp_path, folders)
    with served(study, videos) as address:
        for rater in ("Ada", "Bob"):
            _, headers, body = get(f"{address}/rate?rater={rater}")
            source = re.findall(r'<video src="([^"]+)"', body.decode())[0]
            _, more, _ = get(address + source)
            told = body.decode() + str(headers) + str(more) + source
            assert not re.search('OurMethod|Baseline|mp4"|sample ', told)
            assert "The &lt;ball&gt; rolls &amp; turns" in told, "a prompt is text, never markup"
            assert headers["Cache-Control"] == more["Cache-Control"] == "no-store"
    raters = [f"r{n}" for n in range(60)]
    pair = next(iter(study.pairs.values()))
    sides = [study.ours_is(rater, pair) for rater in raters]
    assert 15 < sides.count("A") < 45
    firsts = {found.key for rater in raters if (found := study.next_pair(rater)) is not None}
    assert len(firsts) > 4, "each rater has an order of their own"
    assert sides == [study.ours_is(rater, pair) for rater in raters]


def test_neither_video_loops_alone(tmp_path: Path, folders: list[Path]) -> None:
    """Clips of different lengths would drift apart: the page begins both again when both have ended."""
    study, videos = new_study(tmp_path, folders)
    with served(study, videos) as address:
        page = get(f"{address}/rate?rater=Ada")[2].decode()
    tags = re.findall(r"<video [^>]*>", page)
    assert len(tags) == 2 and not any(re.search(r"\bloop\b", tag) for tag in tags)
    assert re.search(r'addEventListener\("ended", .*every\(other => other\.ended .*begin\(\)', page)


def test_a_study_goes_on_after_a_restart(tmp_path: Path, folders: list[Path]) -> None:
    study, videos = new_study(tmp_path, folders)
    with served(study, videos) as address:
        rate(address, "Ada", b"OurMethod", most=3)
    answers = tmp_path / "study" / "answers.jsonl"
    with open(answers, "a", encoding="utf-8") as file:
        file.write('{"rater": "Ada", "pa')  # cut off by a kill
    again, videos = new_study(tmp_path, folders)
    assert again.answers == study.answers and again.progress("Ada") == (3, 8)
    with served(again, videos) as address:
        assert rate(address, "Ada", b"OurMethod") == 5
    assert len(answers.read_text(encoding="utf-8").splitlines()) == 8
    assert len(load_study(tmp_path / "study").answers) == 8
    with pytest.raises(ValueError, match="holds another study"):
        Study(tmp_path / "study", list(study.pairs.values())[:2], seed=3, raters=3)


def test_a_second_answer_counts_nothing(tmp_path: Path, folders: list[Path]) -> None:
    study, videos = new_study(tmp_path, folders)
    key = next(iter(study.pairs))
    with served(study, videos) as address:
        for choice in ("A", "B", "A"):
            assert post(address, rater="Ada", pair=key, **dict.fromkeys(QUESTIONS, choice))[0] == 200
    assert len(study.answers) == 1


def test_of_two_answers_on_the_disk_the_first_counts(tmp_path: Path) -> None:
    """Two servers of an earlier version took answers side by side, and one rater answered both."""
    pairs = [Pair("0", "x", "a", "b")]
    study = Study(tmp_path, pairs, raters=3)
    for rater in ("1", "2"):
        study.answer(rater, pairs[0].key, dict.fromkeys(QUESTIONS, study.ours_is(rater, pairs[0])))
    path = tmp_path / "answers.jsonl"
    first, second = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(first + second + first.replace("true", "false"), encoding="utf-8")
    again = load_study(tmp_path)
    assert again.answers == study.answers and again.progress("1") == (1, 1)
    assert {(item.pairs, item.incomplete) for item in preferences(again)} == {(0, 1)}, "the third answer is wanted yet"


def hears_ctrl_c() -> None:
    """A shell's background jobs, and what they start, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_one_server_takes_the_answers_of_a_study(
    tmp_path: Path, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.json").write_text(json.dumps(PROMPTS))
    words = ["serve", *map(str, folders), "--study", str(tmp_path / "s"), "--prompts", str(tmp_path / "p.json")]
    command = [sys.executable, "-m", "benchmarks.human_study", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline().startswith("8 pairs, 5 raters each; ")
            assert "open http://127.0.0.1:" in server.stdout.readline()
            assert main(words) == 2
            assert f"Another server takes the answers of {tmp_path / 's'} now" in capsys.readouterr().err
            assert main(["results", str(tmp_path / "s")]) == 0, "they can be read meanwhile"
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=60) == 0
    with served_alone(tmp_path / "s"):
        pass


def test_what_does_not_belong_is_refused(tmp_path: Path, folders: list[Path]) -> None:
    study, videos = new_study(tmp_path, folders)
    key = next(iter(study.pairs))
    good = dict.fromkeys(QUESTIONS, "A")
    with served(study, videos) as address:
        for form in (
            {"rater": "Ada", "pair": "0" * 16, **good},
            {"rater": "", "pair": key, **good},
            {"rater": "x" * 61, "pair": key, **good},
            {"rater": "Ada", "pair": key, **good, "text": "C"},
            {"rater": "Ada", "pair": key, "text": "A"},
        ):
            assert post(address, **form)[0] == 400
        assert post(address, padding="x" * 20000)[0] == 404
        assert get(f"{address}/video/{key}/C?rater=Ada")[0] == 404
        assert get(f"{address}/video/../../etc/passwd")[0] == 404
        assert get(f"{address}/rate?rater=%20")[0] == 400
        assert get(address, {"Host": "evil.example:80"})[0] == 403, "a name that points here from elsewhere"
        source = f"{address}/video/{key}/A?rater=Ada"
        whole = get(source)[2]
        status, headers, part = get(source, {"Range": "bytes=2-5"})
        assert (status, part) == (206, whole[2:6]) and headers["Content-Range"] == f"bytes 2-5/{len(whole)}"
        assert get(source, {"Range": "bytes=0-"})[2] == whole and get(source, {"Range": "bytes=9999-"})[0] == 416
    assert study.answers == []


def test_incomplete_pairs_are_counted_apart(tmp_path: Path) -> None:
    pairs = [Pair(str(n), "x", "a", "b") for n in range(2)]
    study = Study(tmp_path, pairs, raters=3)
    for rater in ("1", "2", "3", "4"):
        ours = study.ours_is(rater, pairs[0])
        other = "AB".replace(ours, "")
        votes = {"text": ours, "motion": ours if rater in "12" else other, "quality": other}
        study.answer(rater, pairs[0].key, votes)
    study.answer("1", pairs[1].key, dict.fromkeys(QUESTIONS, "A"))
    found = {item.question: item for item in preferences(study)}
    assert all((item.pairs, item.incomplete) == (1, 1) for item in found.values())
    assert (found["text"].won, found["motion"].won, found["quality"].won) == (1, 1, 0)
    assert (found["text"].unanimous, found["motion"].unanimous, found["quality"].unanimous) == (1, 0, 1)


def test_the_command(tmp_path: Path, folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(folder) for folder in folders]
    assert main(["serve", *names, "--study", str(tmp_path / "s")]) == 2
    assert "--prompts FILE" in capsys.readouterr().err
    assert main(["serve", names[0], "--study", str(tmp_path / "s"), "--prompts", "nowhere.json"]) == 2
    assert main(["results", str(tmp_path / "s")]) == 2
    capsys.readouterr()
    pairs, _ = make_pairs(folders, PROMPTS, 2, 0)
    assert len(pairs) == 4 and len({pair.sample for pair in pairs}) == 2
    Study(tmp_path / "s", pairs)
    assert main(["results", str(tmp_path / "s")]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "OurMethod,Baseline1,text,,,,0,2,0"
    with pytest.raises(ValueError, match="no prompt"):
        make_pairs(folders, {}, None, 0)
    with pytest.raises(ValueError, match="two or more"):
        make_pairs([folders[0], folders[0]], PROMPTS, None, 0)
    for path in folders[1].glob("*.mp4"):
        path.unlink()
    with pytest.raises(ValueError, match="holds no video"):
        make_pairs(folders, PROMPTS, None, 0)


def test_prompts_come_from_a_run_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "samples" / "a").mkdir(parents=True)
    (tmp_path / "samples" / "a" / "record.json").write_text(json.dumps({"id": "a", "prompt": "It rolls."}))
    assert prompts_of(tmp_path, None) == {"a": "It rolls."}
    (tmp_path / "p.json").write_text('{"a": "It flies."}')
    assert prompts_of(tmp_path, tmp_path / "p.json") == {"a": "It flies."}
    (tmp_path / "p.json").write_text('["It flies."]')
    with pytest.raises(ValueError, match="holds no prompts"):
        prompts_of(tmp_path, tmp_path / "p.json")
