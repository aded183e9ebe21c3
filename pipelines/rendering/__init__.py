"""Render many prompts to files, in one process or on a cluster; see docs/rendering.md."""
