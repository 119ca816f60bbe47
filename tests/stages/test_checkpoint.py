from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages import whole_files
from stages.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    list_checkpoints,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from stages.whole_files import read_tensors, remove_leftovers, write_json, write_tensors


def _checkpoint(step: int) -> Checkpoint:
    tensors = {"w": torch.full((64,), float(step))}
    return Checkpoint(tensors, tensors, {"w|step": torch.tensor(float(step))}, {"step": step})


def test_last_ones_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (5, 10, 100, 25):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000025", "step-00000100"]
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.state["step"] == 100 and (found.ema["w"] == 100).all()
    assert not list(tmp_path.glob(".*"))


def test_no_moment_of_death_leaves_a_broken_checkpoint(tmp_path: Path) -> None:
    """A process is ended without warning before each file operation of a save in turn."""
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, _checkpoint(1), keep=1)
    deaths, seen = 0, set()
    for moment in range(40):
        child = os.fork()
        if child == 0:
            try:
                _die_before_operation(moment)
                save_checkpoint(folder, _checkpoint(2), keep=1)
                os._exit(0)
            finally:
                os._exit(3)
        _, status = os.waitpid(child, 0)
        found = latest_checkpoint(folder)
        assert found is not None
        step = found.state["step"]
        assert (found.model["w"] == step).all() and (found.ema["w"] == step).all()
        seen.add(step)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 9)
        if code == 0:
            break
        deaths += 1
        whole_files.remove_quietly(folder / "step-00000002")
        if step == 2 and not (folder / "step-00000001").exists():
            save_checkpoint(folder, _checkpoint(1), keep=1)
    else:
        pytest.fail("the save never came to its end")
    assert deaths >= 8 and seen == {1, 2}
    remove_leftovers(folder)
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]


def _die_before_operation(moment: int) -> None:
    """Patch, in a forked child, every operation on files that a save uses."""
    from stages import stored_tensors

    count = 0

    def deadly(function):  # noqa: ANN001, ANN202
        def wrapped(*args, **kwargs):  # noqa: ANN002, ANN003, ANN202
            nonlocal count
            if count == moment:
                os._exit(9)
            count += 1
            return function(*args, **kwargs)

        return wrapped

    stored_tensors.save_file = deadly(stored_tensors.save_file)
    Path.write_text = deadly(Path.write_text)  # type: ignore[method-assign]
    Path.rename = deadly(Path.rename)  # type: ignore[method-assign]
    os.rename = deadly(os.rename)
    os.fsync = deadly(os.fsync)
    whole_files.shutil.rmtree = deadly(whole_files.shutil.rmtree)  # type: ignore[assignment]


def test_a_truncated_file_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, _checkpoint(3), keep=1)
    file = path / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"ema\.safetensors can't be read .* remove .*step-00000003"):
        latest_checkpoint(tmp_path)
    (path / "state.json").unlink()
    with pytest.raises(ValueError, match="no whole checkpoint"):
        latest_checkpoint(tmp_path)


def test_optimiser_state_survives_flattening_bit_for_bit() -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = build()
    step(model, optimizer)
    twin, resumed = build()
    twin.load_state_dict(model.state_dict())
    load_optimizer_tensors(resumed, twin.named_parameters(), optimizer_tensors(optimizer, model.named_parameters()))
    for _ in range(3):
        step(model, optimizer)
        step(twin, resumed)
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, other)
    with pytest.raises(ValueError, match="does not train"):
        load_optimizer_tensors(resumed, [], {"w|step": torch.tensor(1.0)})


class Paged(torch.optim.SGD):
    """As far as loading goes, bitsandbytes' paged optimisers, which run on a GPU alone: small state is plain."""

    is_paged = True

    def init_state(self, group: dict[str, Any], p: nn.Parameter, group_number: int, number: int) -> None:
        assert self.param_groups[group_number] is group and group["params"][number] is p and not self.state[p]
        buffer = torch.zeros_like(p, dtype=torch.uint8)
        buffer.is_paged = p.numel() > 4  # type: ignore[attr-defined]
        self.state[p] |= {"step": 0, "state1": buffer, "absmax1": torch.zeros(1)}


def test_a_paged_optimiser_keeps_the_buffers_that_it_made() -> None:
    named = {name: nn.Parameter(torch.zeros(size)) for name, size in (("small", 3), ("large", 9), ("unseen", 9))}
    groups = [{"params": [named["small"]]}, {"params": [named["unseen"], named["large"]]}]
    optimizer = Paged(groups, lr=0.1)
    flat = {f"{name}|step": torch.tensor(7) for name in ("small", "large")}
    flat |= {f"{name}|state1": torch.arange(len(named[name])).to(torch.uint8) for name in ("small", "large")}
    flat |= {f"{name}|absmax1": torch.ones(1) for name in ("small", "large")}
    load_optimizer_tensors(optimizer, named.items(), flat)
    assert not optimizer.state[named["unseen"]]
    for name in ("small", "large"):
        state = optimizer.state[named[name]]
        assert state["step"] == 7 and state["absmax1"] == 1
        assert torch.equal(state["state1"], flat[f"{name}|state1"])
        assert getattr(state["state1"], "is_paged", False) == (name == "large")


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"w": torch.ones(3)})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left.*expected a writable folder.*a.safetensors"):
        write_tensors(path, {"w": torch.zeros(3)})
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "c", _checkpoint(1), keep=1)
    assert (read_tensors(path, "")["w"] == 1).all()
    assert [item.name for item in tmp_path.iterdir() if item.is_file()] == ["a.safetensors"]
    assert not list((tmp_path / "c").iterdir())


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Cannot write"):
        write_json(tmp_path / "file" / "x.json", {})


def test_parts_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / f".adapter.{os.getppid()}.part").write_text("")
    (tmp_path / ".transformer.999999999.part").write_text("")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".adapter.{os.getppid()}.part"]


def test_leftovers_are_removed_and_nothing_of_the_user(tmp_path: Path) -> None:
    own = [".venv.old", ".bashrc.old", ".env.part", ".backup.2024.old", ".transformer.old", ".write.part", ".git"]
    left = [".few_shot.999999999.part.json", ".few_shot.0a1b2c3d.999999999.part.safetensors", ".step-00000002.old",
            ".step-00000004.999999999.old", ".begun_with.json.999999999.part", ".write-999999999.part"]  # fmt: skip
    for name in [*own, *left]:
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(own)
