"""docs/tutorial.md, done as it says: its edits, its commands, what they print.

The page's blocks are taken in order. `console`: commands, each with what it prints;
`diff`: an edit; `toml` and `gitignore`: a file, named in its first line; `python`: a
piece of the module as it is then; `text`: measured numbers, of which the headings and
the names of the rows are held against the command before; `sh`: what is not done here.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MEASURED = re.compile(r"(?<![\d.])\d+\.\d+(?![\d.])|\b\d+(?= s\b)")
"""Decimal numbers and seconds: what differs from machine to machine."""
GAP = "..."


def blocks(page):
    return [(kind, text) for kind, text in BLOCK.findall(page)]


def commands(text):
    """(command, the lines that it prints) of a console block."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


def plain(line):
    """Without what differs: numbers that were measured, and the width of columns."""
    return " ".join(MEASURED.sub("#", line).split())


def exit_code(printed):
    """What the page says that a command ends with, by what it prints there."""
    if any(line.startswith("error: ") for line in printed):
        return 2
    return 1 if any(line.startswith("FAILED ") for line in printed) else 0


def assert_prints(shown, printed):
    """The lines of the page are those printed, but for gaps."""
    there = [plain(line) for line in printed.splitlines()]
    at, free = 0, False
    for is_gap, lines in groupby(shown, key=lambda line: line == GAP):
        if is_gap:
            free = True
            continue
        wanted = [plain(line) for line in lines]
        starts = range(at, len(there) if free else at + 1)
        found = [k for k in starts if there[k : k + len(wanted)] == wanted]
        assert found, f"not printed: {wanted}\nbut, from line {at}:\n{printed}"
        at, free = found[0] + len(wanted), False
    assert free or not shown or at == len(there), f"printed besides: {there[at:]}"


def table(text):
    """Of the first table in a text: the names of its columns, and of its rows."""
    lines = text.splitlines()
    rule = next(k for k, line in enumerate(lines) if set(line.strip()) == {"─"})
    rows = lines[rule + 1 :]
    end = next(k for k, line in enumerate(rows) if not line or line.startswith("†"))
    return lines[rule - 1].split(), sorted(row.split()[0] for row in rows[:end])


def edited(text, hunks):
    """The text with the hunks of a diff applied, each of which fits in one place."""
    for hunk in hunks:
        old = "".join(f"{line[1:]}\n" for line in hunk if line[:1] != "+")
        new = "".join(f"{line[1:]}\n" for line in hunk if line[:1] != "-")
        assert text.count(old) == 1, f"not there once:\n{old}"
        text = text.replace(old, new)
    return text


@dataclass
class Reader:
    """Somebody who does what the page says, in a folder of their own."""

    environment: object
    folder: Path
    printed: str = ""
    done: list[str] = field(default_factory=list)

    def console(self, text):
        for command, shown in commands(text):
            self.done.append(command)
            words = shlex.split(command)
            if words[0] == "cd":
                self.folder = self.folder / words[1]
                continue
            if words[:2] == ["pip", "install"]:  # from what is there: no network
                words[2:2] = ["--no-build-isolation"]
            ended = self.environment.run(*words, cwd=self.folder)
            self.printed = ended.stdout + ended.stderr
            assert ended.returncode == exit_code(shown), self.printed
            assert_prints(shown, self.printed)

    def diff(self, text):
        name, *lines = text.splitlines()
        path = self.folder / name.removeprefix("--- ")
        assert lines[0] == f"+++ {name.removeprefix('--- ')}"
        parts = groupby(lines[1:], key=lambda line: line == "@@")
        hunks = [list(part) for is_mark, part in parts if not is_mark]
        path.write_text(edited(path.read_text(), hunks))
        self.done.append(f"edit {path.name}")

    def toml(self, text):
        (self.folder / text.split()[1]).write_text(text)

    gitignore = toml

    def python(self, text):
        assert any(text in file.read_text() for file in self.folder.rglob("*.py"))

    def text(self, text):
        assert table(text) == table(self.printed)

    def sh(self, text):
        assert "twine upload" in text


def test_the_blocks_are_of_known_kinds_and_in_order():
    found = [kind for kind, _ in blocks(PAGE.read_text())]
    assert set(found) == {
        *("console", "diff", "python", "text", "toml", "gitignore", "sh")
    }
    assert found.count("sh") == 1


def test_a_page_that_says_otherwise_is_noticed():
    printed = "one 1.5 s\ntwo\nthree\n"
    assert_prints(["one 9.1 s", "two", "three"], printed)
    assert_prints(["one 1 s", GAP], "one 2 s\ntwo\n")
    assert_prints([GAP, "three"], printed)
    for wrong in (["one 1.5 s"], ["two", GAP], [GAP, "two"], [GAP, "four", GAP]):
        with pytest.raises(AssertionError):
            assert_prints(wrong, printed)
    for wrong in ("- two", " two\n+three"):
        with pytest.raises(AssertionError):
            edited("one\n", [wrong.splitlines()])
    assert edited("a\nb\nc\n", [[" a", "-b", "+x"]]) == "a\nx\nc\n"


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(environment, tmp_path):
    reader = Reader(environment, tmp_path / "home")
    reader.folder.mkdir()
    for kind, text in blocks(PAGE.read_text()):
        getattr(reader, kind)(text)
    for word in ("new", "check", "run", "plan"):
        assert any(done.startswith(f"kdbench {word} ") for done in reader.done)
    assert (tmp_path / "home/reverse_kl/results/digits/report/report.html").is_file()
