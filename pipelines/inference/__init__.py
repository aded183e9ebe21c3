"""From a loaded model to music: conditioning, streams, playback, adapters."""
