"""Measure speed: parts, streams, rendering, and ours beside its peers."""
