"""Hold what the three trainers share: the loop, checkpoints, configuration, data."""
