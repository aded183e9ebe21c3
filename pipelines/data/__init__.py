"""Prepare and read the datasets and token caches on which models are trained."""
