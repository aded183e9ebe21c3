"""Notes: MIDI and scores to frames that the prior writes, and back to MIDI and sound."""
