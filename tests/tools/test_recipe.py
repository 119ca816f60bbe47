"""The recipe's commands: each must be one that its program accepts."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from stages.settings_loading import load_settings
from tools.ttm_tiny.__main__ import EMBEDDED, steps


@pytest.mark.parametrize("go_on", [False, True])
def test_every_step_is_a_command_that_its_program_accepts(
    go_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (module, *arguments) in steps(0.5, go_on).items():
        program = importlib.import_module(module)
        if module.startswith("stages."):
            settings = load_settings(arguments)
            assert settings.host.name == "ttm_tiny"
            if name.startswith("stage_"):
                assert settings.host.init_from == (EMBEDDED if go_on else None)
        else:
            monkeypatch.setattr(sys, "argv", [module, *arguments, "--help"])
            with pytest.raises(SystemExit) as stopped:
                program.main()
            assert stopped.value.code == 0, f"{module} {arguments}"
            known = capsys.readouterr().out
            assert all(flag in known for flag in arguments if flag.startswith("--")), f"{module} {arguments}"


def test_going_on_never_takes_up_a_run_from_nothing() -> None:
    def folders(go_on: bool) -> set[str]:
        words = [word.removeprefix("output_dir=") for command in steps(1.0, go_on).values() for word in command]
        return {word for word in words if word.startswith("runs/")}

    assert folders(True) and not folders(True) & folders(False)


def test_going_on_keeps_the_latents_and_the_text_that_both_stages_live_on() -> None:
    commands = steps(1.0, go_on=True)
    assert "text_encoder" not in commands
    assert "--decoder-of" in commands["vae"] and (Path(EMBEDDED) / "vae").is_dir()
