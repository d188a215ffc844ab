"""The Python blocks of a page of the documentation, and a program that runs them.

``python tests/docs_pages.py PAGE`` runs the page's blocks in order, in one namespace: a block
``python`` as it is, a block ``pycon`` as a doctest, which compares what is printed. It prints what
it did as JSON. HTML comments say how to use a block:

``<!-- needs: NAME, NAME -->``
    before a block, or ``<!-- page needs: ... -->`` before the first one: run it only where
    these are there, modules or ``machine code``.
``<!-- insert into: PATH; before: TEXT -->``
    the block is no program, but a change of a file: the lines that begin with the text, in which
    ``\\n`` is a line's end, get the block before them. A test makes these changes in a copy.
``<!-- new file: PATH -->``
    the block is a file, which a test makes in a copy.
"""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).resolve().parent.parent / "docs"
LANGUAGES = ("python", "pycon")

_COMMENT = re.compile(r"<!-- (page needs|needs|insert into|new file): (.*?) -->")
_FENCE = re.compile(r"(`{3,}|~{3,})\s*(\S*)")


class Insertion(NamedTuple):
    """A change of a file that a page shows."""

    path: str
    before: str
    text: str


class Block(NamedTuple):
    """A fenced block."""

    language: str  # the word behind the fence, "" if there is none
    line: int  # the number of its first line on the page, from 1
    text: str
    needs: tuple[str, ...] = ()  # what it needs to run
    insert: str = ""  # where it is to be inserted, "" if it is none to insert
    new_file: str = ""  # the file that it is, "" if it is none

    @property
    def insertion(self) -> Insertion:
        """The change that it is."""
        path, _, before = self.insert.partition("; before: ")
        return Insertion(path, before.replace("\\n", "\n"), self.text)


def pages() -> list[Path]:
    """Return the pages, in order of their names."""
    return sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page.

    Raise ValueError if a fence is never closed, or a comment belongs to no block.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    page_needs: tuple[str, ...] = ()
    comments: dict[str, str] = {}
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        comment = _COMMENT.fullmatch(line.strip())
        fence = _FENCE.match(line)
        if comment and comment[1] == "page needs":
            page_needs = _names(comment[2])
        elif comment:
            comments[comment[1]] = comment[2]
        elif fence:
            first = at
            while at < len(lines) and not lines[at].startswith(fence[1]):
                at += 1
            if at == len(lines):
                raise ValueError(f"{page.name}:{first}: the block is never closed")
            yield Block(
                fence[2],
                first + 1,
                "".join(f"{line}\n" for line in lines[first:at]),
                page_needs + _names(comments.pop("needs", "")),
                comments.pop("insert into", ""),
                comments.pop("new file", ""),
            )
            at += 1
        elif line.strip() and comments:
            raise ValueError(f"{page.name}:{at}: no block follows the comment {comments}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def missing(needs: tuple[str, ...]) -> list[str]:
    """Return what of `needs` is not there."""
    return [name for name in needs if not _is_there(name)]


def _is_there(name: str) -> bool:
    if name == "machine code":
        from asm_libcalls.binding import default_binding

        return default_binding().x86_64 is not None
    return importlib.util.find_spec(name) is not None


def programs(page: Path) -> list[Block]:
    """Return the blocks that are to run."""
    return [b for b in blocks(page) if b.language in LANGUAGES and not (b.insert or b.new_file)]


def run(page: Path) -> dict[str, Any]:
    """Run a page; return how many blocks ran, and for each other one's line what it lacks.

    What a block raises has a traceback with the page's lines. SystemExit is raised if a ``pycon``
    block printed something else, which is on the standard output.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    ran, skipped = 0, {}
    for block in programs(page):
        lacking = missing(block.needs)
        if lacking:
            skipped[block.line] = lacking
            continue
        if block.language == "python":
            padding = "\n" * (block.line - 1)  # so that a traceback names the page's lines
            exec(compile(padding + block.text, str(page), "exec"), namespace)
        else:
            _run_doctest(block, page, namespace)
        ran += 1
    return {"ran": ran, "skipped": skipped}


def _run_doctest(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(
        block.text, namespace, page.name, str(page), block.line - 1
    )
    if not test.examples:
        raise ValueError(f"{page.name}:{block.line}: a pycon block without >>>")
    test.globs = namespace  # get_doctest copies it
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    if runner.run(test, clear_globs=False).failed:
        sys.exit(1)


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
