"""Links of docs/architecture.md to definitions; ``python tests/architecture_links.py`` renews them.

A link is written [`name`](../folder/file.py#L12); ``Class.method`` is looked up inside its class.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<file>\.\./[\w/]+\.py)#L\d+\)")


def line_of(path: Path, name: str) -> int:
    """Return the line on which a function, class or method is defined.

    Raises:
        ValueError: the file defines no such name.
    """
    body = ast.parse(path.read_text()).body
    node: ast.stmt | None = None
    for part in name.split("."):
        definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        node = next((n for n in body if isinstance(n, definitions) and n.name == part), None)
        if node is None:
            raise ValueError(f"{path.relative_to(ROOT)} defines no {name}")
        body = node.body
    assert node is not None
    return node.lineno


def renewed(text: str) -> str:
    """Return the page with every line number as the files have it now."""

    def renew(link: re.Match[str]) -> str:
        line = line_of((PAGE.parent / link["file"]).resolve(), link["name"])
        return f"[`{link['name']}`]({link['file']}#L{line})"

    return LINK.sub(renew, text)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
