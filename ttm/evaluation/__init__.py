"""Scoring folders of videos: find and pair the files, stream them through metrics, report."""
