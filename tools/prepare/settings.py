"""What is prepared, and by which models.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ClipSettings:
    """Which clips are cut, and what is kept of them.

    Attributes:
        num_frames: lengths T; a source is cut into clips of the longest that it has room for, side by side.
        fps: frames a second of the clips. A source that has a whole multiple of it (within 1 %) gives every so-manieth
            frame; any other the frames that are on show at evenly spaced times. Frames are never invented.
        sizes: (H, W); of each source the one that is nearest to its aspect ratio is taken: the largest centred part,
            resized. Empty: every clip keeps its source's size.
        max_clips: most clips of one source, evenly spread over it; None = all that fit.
        masks: "given" takes the masks that lie beside a source where there are any, "tracked" never does.
        masklets: which of SA-V's annotations: "manual" or "auto".
        between: ids of the frames between SA-V's annotated ones: "nearest" annotated frame, or "track" from the
            annotated frame before (needs a segmenter).
        max_objects: most objects that are kept of given masks.
        caption: what clips without a caption show: a text, in which {name} is the file's name in words; None = they
            are rejected, unless a captioner describes them or their masks are given.
        keep_video: whether a clip's frames go into the shard as an mp4.
        clips_per_shard: the size of a shard.
    """

    num_frames: tuple[int, ...] = (17,)
    fps: float = 8.0
    sizes: tuple[tuple[int, int], ...] = ((128, 128),)
    max_clips: int | None = None
    masks: str = "given"
    masklets: str = "manual"
    between: str = "nearest"
    max_objects: int = 12
    caption: str | None = None
    keep_video: bool = True
    clips_per_shard: int = 64

    def __post_init__(self) -> None:
        if not self.num_frames or min(self.num_frames) < 1:
            raise ValueError(f"num_frames is {list(self.num_frames)}; expected lengths of at least 1 frame.")
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"fps is {self.fps}; expected frames a second above 0.")
        if any(min(size) < 8 for size in self.sizes):
            raise ValueError(f"sizes are {list(self.sizes)}; expected (height, width) of at least 8 pixels each.")
        if self.clips_per_shard < 1 or (self.max_clips is not None and self.max_clips < 1):
            counts = f"{self.clips_per_shard} and {self.max_clips}"
            raise ValueError(f"clips_per_shard and max_clips are {counts}; expected at least 1.")
        for name, value, known in (
            ("masks", self.masks, ("given", "tracked")),
            ("masklets", self.masklets, ("manual", "auto")),
            ("between", self.between, ("nearest", "track")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}.")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ModelSettings:
    """Which models see the clips. None: this is not done.

    Attributes:
        segmenter: a saved :class:`ttm.Segmenter`, or "ttm-tiny" for the embedded one: grounds phrases and tracks.
        vae: a pipeline folder (or Hub id) whose autoencoder encodes the clips, or "ttm-tiny".
        captioner: an image-to-text model of transformers (folder or Hub id) that describes clips without a caption.
        planner: "rules", or a causal language model (folder, Hub id, or a name that ``server`` knows).
        server: the URL of an OpenAI-compatible server that ``planner`` is asked of.
        device: "auto" (a GPU if Ray gave the worker one), "cpu" or "cuda".
    """

    segmenter: str | None = None
    vae: str | None = None
    captioner: str | None = None
    planner: str = "rules"
    server: str | None = None
    device: str = "auto"

    @property
    def heavy(self) -> bool:
        """Whether any of them is a network in this process, which is loaded once a worker."""
        local = self.planner != "rules" and self.server is None
        return bool(self.segmenter or self.vae or self.captioner or local)
