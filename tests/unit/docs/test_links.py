"""Links of README and docs lead somewhere, and every loss has its entry."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpo.config.paths import options

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$")
ENTRY = re.compile(r"^### (\S+)$\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
PARTS = ("```math\n", "Gradient", "Reads: ", "Known for: ", "TRL: ")


def without_code(text: str) -> str:
    """The text without fenced blocks and code spans, in which nothing is a link or heading."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL))


@functools.cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors that GitHub gives a page's headings."""
    found: list[str] = []
    fenced = re.sub(r"^( *)```.*?^\1```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for line in fenced.splitlines():
        if heading := HEADING.match(line):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "").lower()
            found.append(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return frozenset(f"{name}-{found[:i].count(name)}" if name in found[:i] else name for i, name in enumerate(found))


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
            yield page, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_are_alive(page: Path) -> None:
    dead = []
    for source, target in links():
        if source != page or target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or not path.is_relative_to(ROOT) or (anchor and anchor not in anchors(path)):
            dead.append(target)
    assert dead == []


def test_there_are_links_and_anchors_to_check() -> None:
    targets = [target for _, target in links()]
    assert len(targets) > 80 and sum("#" in target for target in targets) > 15
    assert {"a-loss-of-your-own", "β"} <= anchors(ROOT / "docs/configuration.md")


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(page.parent / target.partition("#")[0]).resolve() for page, target in links() if page == PAGES[0]}
    assert {page for page in PAGES[1:] if page not in linked} == set()


def entries() -> dict[str, str]:
    return dict(ENTRY.findall((ROOT / "docs/losses.md").read_text(encoding="utf-8")))


def test_every_loss_has_an_entry_and_every_entry_a_loss() -> None:
    assert sorted(entries()) == options("loss")


@pytest.mark.parametrize("name", options("loss"))
def test_an_entry_says_what_a_reader_asks(name: str) -> None:
    text = entries()[name]
    assert [part for part in PARTS if part not in text] == []
    assert f"](../conf/loss/{name}.yaml)" in text
