"""Fine-tune a pipeline on a folder of music."""
