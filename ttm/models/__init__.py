"""The two stages' networks: hosts of diffusers with masked attention and visual conditions."""
