"""The pipeline that ships, and its name."""

import re
from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "pretrained" / "partita-tiny"


def find_shipped(path: str | Path) -> str:
    """Return a path, or the folder of the pipeline that ships where its name is given."""
    shipped = SHIPPED.parent / str(path)
    is_name = re.fullmatch(r"[\w-]+", str(path)) and not Path(path).exists()
    return str(shipped if is_name and shipped.is_dir() else path)
