"""Many prompts to finished files, in one process or on a cluster; see docs/rendering.md."""
