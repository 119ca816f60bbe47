"""Through-The-Mask: image and sentence in, video out, through a mask trajectory."""
