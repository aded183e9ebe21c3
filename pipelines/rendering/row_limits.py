"""Read from a saved pipeline's small files what rows may ask of it, before its weights load."""

import math
from pathlib import Path
from types import SimpleNamespace

from codec.whole_file import read_json_object
from pipelines.data.caption_length import count_tokens
from pipelines.inference.call_arguments import check_duration, check_num_steps


class RowLimits:
    """Answer for a pipeline in a folder what ``RowChecker`` asks a loaded one.

    Attributes:
        config: guidance, temperature and top_k; where they are not set, as good as any.
        prior: with ``config.reads_plan``.
        decoder: None where there is none.
        codec: None: to hash a codec takes its weights, so token files are checked later.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        index = read_json_object(folder / "model_index.json")
        self.longest_s = index.get("max_duration_s", math.inf)
        chosen = {name: index.get(name) for name in ("guidance", "temperature", "top_k")}
        self.config = SimpleNamespace(**chosen)
        prior = read_json_object(folder / "prior" / "config.json")
        reads_plan = bool(prior.get("reads_plan", False))
        self.prior = SimpleNamespace(config=SimpleNamespace(reads_plan=reads_plan))
        self.decoder = None if index.get("decoder") in (None, [None, None]) else "saved"
        self.codec = None
        self.vocabulary = folder / "tokenizer" / "tokenizer.json"

    def num_frames(self, duration_s: float) -> int:
        """Refuse a duration that is out of range."""
        check_duration(duration_s, self.longest_s)
        return 0

    def check_steps(self, steps: int | None, preview: bool) -> int | None:
        """Refuse a number of steps that is out of range."""
        check_num_steps(steps)
        return None if preview else steps

    def tokenizer(self, text: str) -> dict[str, range]:
        """Return as many ids as the text has tokens."""
        known = self.vocabulary.is_file()
        return {"input_ids": range(count_tokens(text, self.vocabulary) if known else 0)}
