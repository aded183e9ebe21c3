"""The commands of ``partita``, one module each."""
