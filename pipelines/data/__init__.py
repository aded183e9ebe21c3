"""What models learn from: datasets, token caches, and how each is prepared."""
