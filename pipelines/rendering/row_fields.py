"""The fields of a row: what each may hold, checked one by one."""

import math
import unicodedata
from collections.abc import Callable
from typing import Any

from codec.audio_file import FORMATS
from pipelines.rendering.mastering import check_levels

LONGEST_ID = 160
FORBIDDEN = set('/\\:*?"<>|')
LARGEST_SEED = 2**63 - 1
MAX_VARIATIONS = 1000


def check_field(name: str, value: Any) -> Any:
    """The value of a field, in its type.

    Raises:
        ValueError: it may not have that value, named with its rule.
    """
    return CHECKS[name](name, value)


def from_text(name: str, text: str) -> Any:
    """A CSV cell as the type that its field wants, or as it is where that fails."""
    kind = KINDS.get(name, _text)
    try:
        if kind is _whole:
            return int(text)
        return float(text) if kind is _number else text
    except ValueError:
        return text


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty, got {value!r:.80}")
    if any(unicodedata.category(letter) == "Cs" for letter in value):
        raise ValueError(f"{name} holds half a surrogate pair, got {value!a:.80}")
    return value


def _number(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {value!r:.80}")
    return number


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, got {value!r:.80}")
    return value


KINDS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("seed", "decoder_seed", "steps", "num_variations"), _whole),
    **dict.fromkeys(("duration_s", "guidance", "temperature", "loudness_lufs"), _number),
}


def _in_range(low: float, high: float) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        value = KINDS[name](name, value)
        if not low <= value <= high:
            raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")
        return value

    return check


def _seed(name: str, value: Any) -> int:
    value = _whole(name, value)
    if not 0 <= value <= LARGEST_SEED:
        raise ValueError(f"{name} must lie in [0, 2**63 - 1], got {value}")
    return value


def _not_negative(name: str, value: Any) -> float:
    value = _number(name, value)
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value:g}")
    return value


def _loudness(name: str, value: Any) -> float:
    value = _number(name, value)
    check_levels(value, 0.0)
    return value


def _format(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in FORMATS:
        raise ValueError(f"{name} must be one of {', '.join(FORMATS)}, got {value!r:.80}")
    return value


def check_id(name: str, value: Any) -> str:
    """An id that names files in the output folder and nowhere else, on any file system.

    Raises:
        ValueError: it does not.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = _text(name, value)
    if len(text.encode(errors="replace")) > LONGEST_ID:
        raise ValueError(f"{name} may have at most {LONGEST_ID} bytes, got {text!r:.60}")
    odd = next((c for c in text if c in FORBIDDEN or unicodedata.category(c)[0] == "C"), None)
    if odd is not None:
        raise ValueError(f"{name} names files and may not hold {odd!r}, got {text!r:.80}")
    if text != text.strip() or text[0] in ".-" or text[-1] == ".":
        raise ValueError(
            f"{name} names files and may not begin with a dot, a dash or a space, or end with a "
            f"dot or a space, got {text!r:.80}"
        )
    return text


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "id": check_id,
    "prompt": _text,
    "negative_prompt": _text,
    "duration_s": _number,
    "seed": _seed,
    "decoder_seed": _seed,
    "guidance": _not_negative,
    "temperature": _not_negative,
    "steps": _in_range(1, 16),
    "num_variations": _in_range(1, MAX_VARIATIONS),
    "format": _format,
    "loudness_lufs": _loudness,
    "codes": _text,
}

FIELDS = tuple(CHECKS)
