# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of docs/glossary.md, where a reader meets them first.

`prose_todo.txt` lists what does not follow a rule yet. A place that is clean leaves the list, and none comes to it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from places import REPOSITORY

TODO = Path(__file__).with_name("prose_todo.txt")
VERBS = (
    "Add|Apply|Build|Check|Configure|Copy|Create|Disable|Drain|Enable|Ensure|Fail|Find|Gather|Generate|Import|Include|"
    "Install|Issue|Pin|Probe|Read|Reboot|Record|Register|Reload|Remove|Report|Restart|Restore|Resume|Revoke|Run|Set|Show|"
    "Sign|Skip|Start|Stop|Test|Update|Upgrade|Validate|Verify|Wait|Write"
)
# For which docs/glossary.md has another word.
WORDS = (
    r"(?i)\b(people|persons?|somebody|nobody|everybody|anybody|whoever|teammates?|doors?|way (back|in)|the absent|"
    r"(?<!slurm )controllers?)\b"
)


@dataclass(frozen=True)
class Rule:
    """What no text of a kind may match, with an example of what it allows and one of what it refuses."""

    kind: str
    pattern: str
    allowed: str
    refused: str


RULES = {
    "task-verb": Rule("task", rf"^(?!({VERBS})\b)", "Check the key", "Want the node to let us in"),
    "metaphor": Rule(
        "heading", r"(?i)\b(doors?|sick|well|way (back|in)|let (people|\w+) in|get in|in order)\b",
        "Automatic rollback", "Look again whether the doors are sound",
    ),
    "question": Rule(
        "heading", r"(?i)\b(who|whom|whose|what (a|it|is|if|may|does)|in what|beforehand|besides|whether)\b",
        "Exit codes", "See beforehand what would change",
    ),
    "heading-words": Rule("heading", WORDS, "Add a user on the Slurm controller", "Let a teammate in"),
    "short-description": Rule(
        "short", r"^(Tell|Say|Let|Make|See to|Put|End|Work out|What|The|Only|From|A)\b",
        "Manage users, SSH keys and sudo rules", "Make the people of a list the people of a node",
    ),
    "short-words": Rule(
        "short", WORDS, "Harden sshd with automatic rollback", "Put a policy for sshd into force, with a way back",
    ),
    "docstring": Rule(
        "docstring",
        r"^(What|Who|Whom|Whose|Whether|Where|How|Why|When|As|Of|Else|Also|Elsewhere|With|Without|For|From|Nothing|Only)\b",
        "Return the ports that sshd listens on.", "What a file shall say.",
    ),
    "page-words": Rule("page", WORDS, "Users log in through the jump host.", "Nobody is locked out."),
    "source-words": Rule("source", WORDS, "The Slurm controller decides.", "Runs on the controller."),
}  # fmt: skip


def tasks() -> Iterator[tuple[str, str]]:
    for folder in ("roles", "playbooks"):
        for path in (REPOSITORY / folder).rglob("*.yml"):
            # Plays, which begin at the margin of a playbook, have nouns as names.
            indent = " +" if folder == "playbooks" and path.parent.name not in ("tasks",) else " *"
            for name in re.findall(rf"^{indent}- name: (.+)$", path.read_text(), re.MULTILINE):
                if "/meta/" not in str(path):
                    yield str(path.relative_to(REPOSITORY)), name


def pages() -> list[Path]:
    return [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "roles").glob("*/README.md")]


def prose(page: Path) -> str:
    """Return the text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def headings_of(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)


def headings() -> Iterator[tuple[str, str]]:
    for path in pages():
        for heading in headings_of(path):
            yield str(path.relative_to(REPOSITORY)), heading


def short_descriptions() -> Iterator[tuple[str, str]]:
    plugins = [
        path for kind in ("modules", "inventory", "filter") for path in (REPOSITORY / "plugins" / kind).glob("*.py")
    ]
    for path in [*plugins, *(REPOSITORY / "roles").glob("*/meta/argument_specs.yml")]:
        for text in re.findall(r"^\s*short_description: (.+)$", path.read_text(), re.MULTILINE):
            yield str(path.relative_to(REPOSITORY)), text.strip('"').replace("[INTERNAL] ", "")


def docstrings() -> Iterator[tuple[str, str]]:
    for path in (REPOSITORY / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (text := ast.get_docstring(node)):
                yield str(path.relative_to(REPOSITORY)), text.splitlines()[0]


def page_lines() -> Iterator[tuple[str, str]]:
    for path in pages():
        # The glossary names the words that are not used.
        if path.name != "glossary.md":
            yield from ((str(path.relative_to(REPOSITORY)), line) for line in prose(path).splitlines())


def source_lines() -> Iterator[tuple[str, str]]:
    """Yield the docstrings and comments of plugins and the documentation of modules, line by line."""
    for path in (REPOSITORY / "plugins").rglob("*.py"):
        text = path.read_text()
        blocks = re.findall(r'"""(.*?)"""', text, re.DOTALL) + re.findall(r"^ *# (.*)$", text, re.MULTILINE)
        yield from ((str(path.relative_to(REPOSITORY)), line) for block in blocks for line in block.splitlines())


TEXTS = {
    "task": tasks,
    "heading": headings,
    "short": short_descriptions,
    "docstring": docstrings,
    "page": page_lines,
    "source": source_lines,
}


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub makes them of its headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings_of(page)}


def faults() -> dict[str, list[str]]:
    """Return by rule and place, as the list has them, the texts that break the rule."""
    found: dict[str, list[str]] = {}
    for kind, texts in TEXTS.items():
        rules = {name: rule for name, rule in RULES.items() if rule.kind == kind}
        for place, text in texts():
            for name, rule in rules.items():
                if re.search(rule.pattern, text):
                    found.setdefault(f"{name} {place}", []).append(text)
    return found


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_rule_finds_what_it_is_for(rule: Rule) -> None:
    assert re.search(rule.pattern, rule.refused)
    assert not re.search(rule.pattern, rule.allowed)


@pytest.mark.parametrize("kind", TEXTS)
def test_there_is_something_to_look_at(kind: str) -> None:
    assert len(list(TEXTS[kind]())) > 20


def test_words_are_those_of_the_glossary() -> None:
    found, listed = faults(), TODO.read_text().splitlines()
    new = {key: texts for key, texts in found.items() if key not in listed}
    assert not new, "the field has other words for this, see docs/glossary.md"
    assert listed == sorted(found), "what is clean leaves prose_todo.txt, which is sorted"


def test_links_between_pages_lead_somewhere() -> None:
    dead = []
    for page in pages():
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _hash, anchor = target.partition("#")
            if "://" in path:
                continue
            there = (page.parent / path).resolve() if path else page
            if not there.exists() or (anchor and anchor not in anchors(there)):
                dead.append(f"{page.relative_to(REPOSITORY)}: {target}")
    assert dead == []
