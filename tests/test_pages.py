"""The pages in docs/: their commands run, and print and draw what stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
from process import python

DOCS = Path(__file__).parent.parent / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="only in a checkout")


@pytest.mark.parametrize("page", [DOCS / "explore.md"], ids=lambda page: page.name)
def test_commands_print_and_draw_what_the_page_says(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"^```\n(python .*?)\n```$", text, re.M):
        python(*shlex.split(command)[1:], cwd=tmp_path)
    code = "".join(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S))
    said = [line.split("  # ")[-1].strip().removeprefix("# ") for line in code.splitlines() if "  # " in line]
    assert len(said) > 10
    assert python("-c", code, cwd=tmp_path).splitlines() == said
    drawn = re.findall(r"\.save\(\"(.*?)\"\)", code)
    for name in drawn:
        ours, theirs = (sorted(map(str, ElementTree.parse(folder / name).getroot().itertext())) for folder in (tmp_path, DOCS))
        assert ours == theirs
    pictures = set(re.findall(r"!\[.*?\]\((.*?)\)", text))
    assert pictures >= set(drawn)
    assert all((DOCS / picture).is_file() for picture in pictures)
