"""Videos to training data: clips, captions, plans, tracked ids, latents, in shards."""
