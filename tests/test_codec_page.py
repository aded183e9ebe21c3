"""The page about the codec elsewhere: its first block runs."""

import re
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2LMHeadModel

ROOT = Path(__file__).parent.parent


def test_gpt2_on_tokens_of_the_codec(monkeypatch):
    """The loss falls, and what GPT-2 writes is sound of its length."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "codec.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(code, names)
    assert isinstance(names["model"], GPT2LMHeadModel)
    assert names["sound"].shape == (1, 2, 250 * 1764)
    rows = names["rows"]
    assert float(names["model"](input_ids=rows, labels=rows).loss) < 6.9  # of uniform codes
