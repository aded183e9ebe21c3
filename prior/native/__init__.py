"""The prior's decoding step as one C function, for a few rows on a CPU."""
