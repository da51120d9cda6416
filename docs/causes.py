# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write causes.md, the page of all causes, from the table that ssh_doctor uses: .venv/bin/python docs/causes.py"""

from __future__ import annotations

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / ".ansible/collections"))

from ansible_collections.gpuops.fleet.plugins.plugin_utils._reach.causes import CAUSES, STAGES, Cause

HEAD = """\
# Causes: what ssh_doctor finds

<!-- Made by docs/causes.py from plugins/plugin_utils/_reach/causes.yml. -->

`ansible-playbook gpuops.fleet.doctor` examines each node stage by stage and names one of these causes. A cause that
fails ends the examination; a *warning* does not. *Retried* causes may pass by themselves, all others need a person, so
`attempts` does not repeat them. The commands are those for a node `gpu-1` that is `root@203.0.113.7`, port 40022; the
doctor fills in the real values.
"""
EXAMPLE = {
    "alias": "gpu-1",
    "host": "203.0.113.7",
    "address": "203.0.113.7",
    "user": "root",
    "login": "-p 40022 root@203.0.113.7",
    "copy_id": "-i ~/.ssh/fleet -p 40022 root@203.0.113.7",
    "identity": "~/.ssh/fleet",
    "known_hosts": "~/.ssh/known_hosts",
    "known_name": "'[203.0.113.7]:40022'",
    "fingerprint": "SHA256:ycV9Ucl4…",
    "query": "kex",
}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for stage in STAGES:
        parts.append(f"\n## {stage}\n\n| cause | seen | meaning | next |\n|---|---|---|---|\n")
        parts += [_row(cause) for cause in CAUSES.values() if cause.stage == stage]
    return "".join(parts)


def _row(cause: Cause) -> str:
    notes = [note for note, applies in (("warning", cause.severity == "warn"), ("retried", cause.transient)) if applies]
    name = f"`{cause.code}`" + (f" ({', '.join(notes)})" if notes else "")
    cells = (name, cause.seen, cause.meaning, cause.remedy.format_map(EXAMPLE))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    (HERE / "causes.md").write_text(page())
