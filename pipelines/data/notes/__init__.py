"""Turn MIDI and scores into frames that the prior writes, and back into MIDI and sound."""
