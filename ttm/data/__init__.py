"""Clips to train and to measure on."""
