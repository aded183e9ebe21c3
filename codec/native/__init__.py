"""What runs in C: one library of the prior's frame and the vocoder's inner loops."""
