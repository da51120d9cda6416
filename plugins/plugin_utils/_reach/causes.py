# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The closed table of what can be wrong with a node on the way over SSH, which is causes.yml.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.common.yaml import yaml_load


@dataclass(frozen=True)
class Cause:
    """One reason; causes.yml says what the fields are."""

    code: str
    stage: str
    seen: str
    meaning: str
    remedy: str
    remedy_with_password: str = ""
    severity: str = "fail"
    transient: bool = False


class SickError(Exception):
    """A stage failed: the code of the cause, what was seen, and values for the remedy."""

    def __init__(self, code: str, seen: str, **values: str) -> None:
        super().__init__(seen)
        self.code = code
        self.seen = " ".join(seen.split())
        self.values = values


# Read with the import, which Ansible does before it forks: the forks of all hosts share it.
_TABLE = yaml_load(Path(__file__).with_name("causes.yml").read_text(encoding="utf-8"))
STAGES = tuple(_TABLE)
CAUSES = {code: Cause(code, stage, **fields) for stage, causes in _TABLE.items() for code, fields in causes.items()}
