"""Image and phrases (or boxes, points) to object ids, and first-frame ids to tracked ids: SAM2 with
grounding by open_clip or Grounding DINO."""

from ttm.segmentation.places import Box, Point
from ttm.segmentation.segmenter import Segmenter

__all__ = ["Box", "Point", "Segmenter"]
