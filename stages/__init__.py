"""Training of the two stages. Imports only ``ttm``; never the segmenter's packages."""
