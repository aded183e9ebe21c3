"""Measure what was made: metrics as pure functions, and the reports built from them.

A metric takes clips, not batches: ``(C, S)`` float32 tensors in [-1, 1], C audio channels and
S samples, with ``sample_rate`` in Hz where it matters. Metrics that compare take ``reference``
first and ``estimate`` second and refuse clips of different shapes (``clip_checks``). What cannot be
measured (a silent clip, a mono clip's stereo image, a package that is not installed) raises
``UnmeasurableError`` or ``MissingPackageError``; a report writes the reason in place of the number.
"""
