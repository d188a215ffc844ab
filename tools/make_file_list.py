"""Write ``docs/files.md``: each file of the package with the first line of its docstring.

    python tools/make_file_list.py            writes the file
    python tools/make_file_list.py --check    exits with 1 if it is not up to date

A test makes the page again and compares.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "asm_libcalls"
PAGE = REPOSITORY / "docs" / "files.md"

HEADER = """\
<!-- Made by tools/make_file_list.py from the docstrings: do not edit. -->

# The files

Each file of the package, with the first line of its docstring. {doc}`architecture` explains the
folders and the words, and says in which direction the imports run.

```text
"""
_INDENT, _COLUMN = "    ", 44


def summary(path: Path) -> str:
    """Return the first line of a module's docstring, without markup."""
    text = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]
    text = re.sub(r":\w+:`~?([\w.]+)`", lambda match: match[1].rpartition(".")[2], text)
    return text.replace("``", "").replace("`", "")


def lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a folder, its files, and the folders in it."""
    yield _line(f"{folder.name}/", folder / "__init__.py", depth)
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield _line(path.name, path, depth + 1)
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").is_file():
            yield from lines(path, depth + 1)


def _line(name: str, path: Path, depth: int) -> str:
    return f"{_INDENT * depth + name:<{_COLUMN}}{summary(path)}"


def page() -> str:
    """Return the content of the page."""
    return HEADER + "\n".join(lines(PACKAGE)) + "\n```\n"


def main() -> int:
    """Write or check the page, and return the exit code."""
    parser = argparse.ArgumentParser(description="Write the documentation's list of files.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    check = parser.parse_args().check
    content = page()
    if PAGE.exists() and PAGE.read_text("utf-8") == content:
        return 0
    if check:
        print(f"{PAGE} is out of date: run python tools/{Path(__file__).name}", file=sys.stderr)
        return 1
    PAGE.write_text(content, "utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
