"""What every test shares: which tests wait to be asked for, and where the time of a session went."""

from __future__ import annotations

from collections import defaultdict

import pytest

ASKED_FOR = {"slow": "takes minutes; run with -m slow", "gpu": "needs a CUDA device; run with -m gpu"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with a reason, tests of a marker that ``-m`` does not ask for, and those without a device."""
    expression = config.option.markexpr or ""
    for item in items:
        for name, reason in ASKED_FOR.items():
            if item.get_closest_marker(name) and name not in expression:
                item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("gpu") and "gpu" in expression and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The seconds of every test file, longest first, and the five longest tests."""
    files: dict[str, float] = defaultdict(float)
    tests: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                files[report.nodeid.partition("::")[0]] += report.duration
                tests[report.nodeid] += report.duration
    if not files:
        return
    terminalreporter.section(f"seconds of this session ({sum(files.values()):.1f} in all, over all workers)")
    for table, count in ((files, 12), (tests, 5)):
        for name, seconds in sorted(table.items(), key=lambda entry: -entry[1])[:count]:
            terminalreporter.write_line(f"{seconds:8.2f}  {name}")
        terminalreporter.write_line("")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
