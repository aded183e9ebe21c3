"""Audio files to a prepared dataset: find tracks, cut them, drop duplicates, join the clips."""
