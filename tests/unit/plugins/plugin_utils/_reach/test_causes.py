# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import runpy

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import CAUSES, STAGES
from places import REPOSITORY

DOCS = REPOSITORY / "docs"


def test_the_page_of_causes_is_what_the_table_gives() -> None:
    page = runpy.run_path(str(DOCS / "causes.py"))["page"]()
    assert (DOCS / "causes.md").read_text() == page, "stale: .venv/bin/python docs/causes.py"


@pytest.mark.parametrize("code", CAUSES)
def test_every_cause_has_a_place_and_a_weight(code: str) -> None:
    assert CAUSES[code].stage in STAGES
    assert CAUSES[code].severity in ("fail", "warn")
    assert f"| `{code}`" in (DOCS / "causes.md").read_text()


@pytest.mark.parametrize(
    "code", ["host_key_changed", "host_key_unknown", "auth_key_refused", "auth_no_key", "name_unknown", "not_ssh"]
)
def test_what_needs_a_person_is_not_retried(code: str) -> None:
    assert not CAUSES[code].transient


@pytest.mark.parametrize("code", ["tcp_timeout", "connection_reset", "max_startups", "penalties", "system_closed"])
def test_what_passes_by_itself_is_retried(code: str) -> None:
    assert CAUSES[code].transient


def test_warnings_are_not_retried() -> None:
    assert not [cause.code for cause in CAUSES.values() if cause.severity == "warn" and cause.transient]
