"""Make labeled music without recordings: compose or arrange a score, play it, describe it."""
