# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports for machines, as files on the control node. **PRIVATE** to the collection."""

from __future__ import annotations

import os
import tempfile

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import ProblemError


class ReportFileError(ProblemError):
    """The file cannot be written."""


def write_report(path: str, text: str) -> None:
    """Replace a file in one step, so that nobody reads half of it."""
    folder = os.path.dirname(path) or "."
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            try:
                file.write(text)
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise ReportFileError(
            f"the report cannot be written to {path}: {error.strerror}", remedy=f"ls -ld {folder}"
        ) from error
