"""The launch files: accelerate reads them, and the commands at their heads make settings that fit them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from stages.settings_loading import CONFIG_DIR, load_settings
from stages.sharding import check_sharding
from stages.train import run

FILES = sorted((CONFIG_DIR / "launch").glob("*.yaml"))


PAGES = [CONFIG_DIR.parent / name for name in ("README.md", "docs/training_cluster.md")]


def _commands() -> list[list[str]]:
    """The arguments of every accelerate launch that the head of a launch file, or a page, names."""
    heads = ["\n".join(line[1:] for line in path.read_text().splitlines() if line.startswith("#")) for path in FILES]
    found = []
    for text in [*heads, *(page.read_text() for page in PAGES)]:
        for command in re.findall(r"^ +accelerate launch(.*)$", re.sub(r"\\ *\n", " ", text), re.MULTILINE):
            words = command.partition(" #")[0].split()
            found.append([{"R": "1", "ADDRESS": "10.0.0.1"}.get(word, word) for word in words])
    return found


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_a_launch_file_and_its_command_fit_together(command: list[str]) -> None:
    found = launch_command_parser().parse_args(command)
    (path,) = [path for path in FILES if path.match(found.config_file)]
    assert found.module and found.training_script == "stages.train"
    launch = load_config_from_file(str(path))
    assert launch.mixed_precision == "bf16" and launch.num_processes % launch.num_machines == 0
    assert launch.distributed_type.value == ("NO" if launch.num_processes == 1 else "MULTI_GPU")
    if launch.num_machines > 1:
        assert found.machine_rank == 1 and found.main_process_ip and launch.main_process_port
    settings = load_settings(found.training_script_args)
    check_sharding(settings)
    assert settings.precision == "bf16" and settings.data.name == "prepared" and settings.gradient_checkpointing
    assert settings.batch_size % launch.num_processes == 0
    assert settings.sharding == ("none" if launch.num_processes == 1 else "full")
    assert settings.host.trainable == ("lora" if "lora" in path.stem else "all")


def test_every_size_of_host_has_a_launch_file() -> None:
    assert {Path(command[command.index("--config_file") + 1]) for command in _commands()} == {
        path.relative_to(CONFIG_DIR.parent) for path in FILES
    }
    assert {path.stem for path in FILES} == {"one_gpu", "wan_1_3b", "wan_5b", "wan_14b_lora", "wan_14b"}


def test_a_launch_file_that_shares_models_out_itself_is_refused(settings, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    from accelerate import Accelerator, DistributedType

    monkeypatch.setattr(Accelerator, "distributed_type", property(lambda self: DistributedType.FSDP))
    with pytest.raises(ValueError, match="asks for FSDP; expected MULTI_GPU there"):
        run(settings())


def test_what_can_not_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected adamw"):
        check_sharding(load_settings(["memory=shared", "optimizer.name=adamw_8bit"]))
    monkeypatch.setattr("stages.sharding.torch.__version__", "2.6.0+cu124")
    with pytest.raises(ValueError, match="expected torch 2.7 or newer"):
        check_sharding(load_settings(["memory=shared_lora"]))
    check_sharding(load_settings(["memory=shared"]))
    with pytest.raises(ValueError, match="sharding is 'some'"):
        load_settings(["sharding=some"])
