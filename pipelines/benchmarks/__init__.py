"""Measurements of speed: what a frame reads, and ours beside its peers."""
