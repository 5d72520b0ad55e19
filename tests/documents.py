"""The documents of this project, and the code blocks in them."""

import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"# (\w+\.(?:gin|py))\n")
COMMANDS = ("launch/local.sh ", "launch/tpu_vm.sh ", "lmirl ")


class Block(NamedTuple):
    """A code block: its language as the page gives it, and its text. `name` is the file that it is to be put into."""

    language: str
    text: str

    @property
    def name(self) -> str | None:
        found = FILE_NAME.match(self.text)
        return None if found is None else found[1]

    @property
    def is_python(self) -> bool:
        return self.language == "python"

    @property
    def is_shell(self) -> bool:
        """Whether a line of it begins with a command of this project."""
        return any(line.startswith(COMMANDS) for line in self.text.splitlines())


def blocks(page: pathlib.Path) -> list[Block]:
    return [Block(*match) for match in BLOCK.findall(page.read_text(encoding="utf-8"))]


def write_files(folder: pathlib.Path) -> None:
    """Writes the files that code blocks define, by the names that their first lines give."""
    for page in PAGES:
        for block in blocks(page):
            if block.name is not None:
                (folder / block.name).write_text(block.text, encoding="utf-8")
