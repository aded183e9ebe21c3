"""What ``DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True)`` imports."""

from pipelines import Pipeline  # noqa: F401  (of `pip install partita`)
