"""The recipe that trains every component of ttm-tiny-unet on the synthetic world."""
