"""Image and phrases to object ids, and first-frame ids to tracked ids: SAM2 with open_clip's grounding."""

from ttm.segmentation.segmenter import Segmenter

__all__ = ["Segmenter"]
