"""How long a run still takes: seconds a sampler's run and seconds an item, learnt as it goes."""

from __future__ import annotations

from collections import defaultdict


class TimeLeft:
    """Estimates the rest of a run.

    Args:
        remaining: items still to do, by measure.
        samplings: runs of a sampler that one item costs, by measure.
    """

    def __init__(self, remaining: dict[str, int], samplings: dict[str, int]) -> None:
        self._remaining = dict(remaining)
        self._samplings = samplings
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def done(self, measure: str, seconds: float) -> None:
        """One item of a measure took so long."""
        self._remaining[measure] -= 1
        self._seconds[measure].append(seconds)

    def skip(self, measure: str) -> None:
        """One item of a measure needs no time: another process did it."""
        self._remaining[measure] -= 1

    def seconds(self) -> float | None:
        """Seconds left; None while unknown. A measure not begun is taken to cost what its samplings do."""
        sampled = [
            sum(times) / len(times) / self._samplings[name]
            for name, times in self._seconds.items()
            if times and self._samplings[name]
        ]
        total = 0.0
        for name, count in self._remaining.items():
            times = self._seconds[name]
            if times:
                total += count * sum(times) / len(times)
            elif count and self._samplings[name]:
                if not sampled:
                    return None
                total += count * self._samplings[name] * max(sampled)
        return total


def format_seconds(seconds: float | None) -> str:
    """ "12 s", "3.5 min", or "?"."""
    if seconds is None:
        return "?"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
