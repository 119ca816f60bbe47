"""Image and sentence in, video out: the two stages and both together, in the conventions of diffusers.

Nothing is imported here, so that ``ttm.pipelines.conditioning`` can be had without any pipeline.
"""
