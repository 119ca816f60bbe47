"""Measures of videos and masks: plain NumPy, one file a kind, every rule written where it is computed."""
