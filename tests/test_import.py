"""``import ttm``: quick, without torch, and everything it promises is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ttm

ROOT = Path(__file__).parents[1]


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_of_weight() -> None:
    heavy = ["torch", "numpy", "diffusers", "transformers", "PIL", "ttm.objects"]
    shown = _python(f"import ttm, sys; print([name for name in {heavy} if name in sys.modules])")
    assert shown.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in ttm.__all__ if name != "__version__"])
def test_every_name_can_be_had(name: str) -> None:
    assert getattr(ttm, name).__name__ == name
    assert name in dir(ttm)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        ttm.Pipelin  # noqa: B018


def test_the_version_is_the_packages() -> None:
    assert f'\nversion = "{ttm.__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_data_of_a_plan_needs_no_torch() -> None:
    code = "import ttm, sys; ttm.PromptPlan, ttm.MaskTrajectory, ttm.RulePlanner; print('torch' in sys.modules)"
    assert _python(code).strip() == "False"


def test_conditioning_can_be_had_without_a_pipeline() -> None:
    code = "import ttm.pipelines.conditioning, sys; print('diffusers' in sys.modules)"
    assert _python(code).strip() == "False"
