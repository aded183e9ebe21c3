"""The commands of ``partita`` that have no other home, one module each."""
