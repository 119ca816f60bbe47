"""The papers' tables, so that a report can print them beside its own; always marked as published.

Through-The-Mask (arXiv 2501.03059), Tables 1 and 2; the few-shot paper (arXiv 2503.18386), Tables I and II. "Text",
"Motion" and "Quality" are the human study: the share of raters, in percent, who prefer Through-The-Mask's video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SPLIT_COLUMNS = ("FVD", "CF", "ViCLIP-T", "ViCLIP-V", "AD", "Text", "Motion", "Quality")

DIGITS = {"FVD": 2, "AD": 2, "Text": 1, "Motion": 1, "Quality": 1}
"""Figures behind the point, as the papers print them; 3 in the other columns."""

OURS = {
    "FVD": "FVD",
    "CF": "CF-all-pairs",
    "ViCLIP-T": "ViCLIP-T",
    "ViCLIP-V": "ViCLIP-V",
    "AD": "AD",
    "Consistency": "CF-adjacent",
    "Alignment": "Alignment",
    "IoU": "mask-IoU",
}
"""The column of a paper -> the metric of ours that it is; the human study has none."""


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper.

    Attributes:
        title: which one.
        splits: groups of columns; ("",) is one group.
        columns: of each group, in the paper's words.
        rows: method -> values, group after group; None where the paper has none.
        note: what a reader must know before comparing.
    """

    title: str
    splits: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[float | None]]
    note: str = ""

    def value(self, method: str, split: str, column: str) -> float | None:
        """One figure."""
        place = self.splits.index(split) * len(self.columns) + self.columns.index(column)
        return self.rows[method][place]


def _rows(text: str) -> dict[str, list[float | None]]:
    """Lines of "method: value value …"; "-" is none."""
    found: dict[str, list[float | None]] = {}
    for line in text.strip().splitlines():
        name, _, values = line.partition(":")
        found[name.strip()] = [None if value == "-" else float(value) for value in values.split()]
    return found


_SA_V_128 = """
VideoCrafter: 1484.18 0.966 0.209 0.796 2.93 84.3 84.3 81.2  1413.83 0.966 0.208 0.802 3.75 84.3 87.5 92.1
DynamiCrafter: 1442.48 0.942 0.214 0.817 8.94 75.0 81.2 82.8  1300.07 0.947 0.211 0.834 7.56 75.0 73.4 76.5
Motion-I2V: 1195.08 0.937 0.220 0.822 6.28 75.0 89.0 93.7  1162.06 0.935 0.219 0.821 6.97 81.0 89.0 95.3
ConsistI2V: 1206.61 0.951 0.218 0.839 5.21 65.6 78.1 81.2  1186.10 0.935 0.217 0.850 7.25 81.2 82.8 84.3
TI2V (U-Net): 1285.99 0.942 0.219 0.877 5.90 53.1 59.3 70.3  1410.68 0.942 0.218 0.883 7.93 62.5 64.0 60.0
Through-The-Mask (U-Net): 925.39 0.969 0.220 0.888 4.70 - - -  1089.86 0.966 0.220 0.896 5.59 - - -
TI2V (DiT): 1232.89 0.924 0.223 0.797 10.87 65.6 73.4 68.7  1156.82 0.917 0.221 0.805 10.52 64.0 59.3 64.0
Through-The-Mask (DiT): 1216.83 0.945 0.226 0.860 7.22 - - -  1134.71 0.948 0.225 0.863 7.48 - - -
"""

_IMAGE_ANIMATION_BENCH = """
VideoCrafter: 266.83 0.961 0.195 0.810 4.87 78.9 78.1 80.4
DynamiCrafter: 217.40 0.946 0.200 0.840 8.28 55.4 53.9 53.9
Motion-I2V: 286.42 0.928 0.209 0.746 7.46 81.2 82.8 83.5
ConsistI2V: 283.59 0.938 0.202 0.838 6.38 57.0 67.1 65.6
TI2V (U-Net): 242.18 0.954 0.203 0.858 5.99 49.2 57.8 66.4
Through-The-Mask (U-Net): 196.23 0.962 0.210 0.865 5.69 - - -
TI2V (DiT): 212.23 0.937 0.206 0.789 9.00 61.7 63.2 67.1
Through-The-Mask (DiT): 192.45 0.948 0.215 0.847 7.42 - - -
"""

_FEW_SHOT = """
Tune-A-Video: 95.4 30.9
Text2Video-Zero: 97.0 32.6
ControlVideo: 97.1 32.1
LAMP: 95.1 32.3
Mask-guided (the paper's own): 97.4 33.0
"""

_FVD_NOTE = (
    "FVD compares only at an equal number of videos, frames, size and rate; of these the paper states the videos alone"
    " (64 a split in Table 1, 2,500 in Table 2)."
)

TABLES: dict[str, PublishedTable] = {
    "sa_v_128": PublishedTable(
        "Table 1 of Through-The-Mask: SA-V-128", ("single", "multi"), SPLIT_COLUMNS, _rows(_SA_V_128), _FVD_NOTE
    ),
    "image_animation_bench": PublishedTable(
        "Table 2 of Through-The-Mask: Image-Animation-Bench",
        ("",),
        SPLIT_COLUMNS,
        _rows(_IMAGE_ANIMATION_BENCH),
        _FVD_NOTE,
    ),
    "few_shot": PublishedTable(
        "Table I of the few-shot paper",
        ("",),
        ("Consistency", "Alignment"),
        {name: [value / 100 if value else None for value in row] for name, row in _rows(_FEW_SHOT).items()},
        "The paper prints percent; here both are cosines.",
    ),
}
