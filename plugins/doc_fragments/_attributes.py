# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What check mode, diff mode and a second run do, once for all modules.

This doc fragment is PRIVATE to the collection.
"""

from __future__ import annotations


class ModuleDocFragment:
    """Descriptions of the attributes; each module says what it supports."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode, and then says what would change without changing it.
  diff_mode:
    description: Shows what changed, or would change in check mode, when in diff mode.
  idempotent:
    description: A second run with the same arguments changes nothing.
"""

    # For modules that only read.
    READ_ONLY = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - The module changes nothing, and does the same in check mode.
  diff_mode:
    support: none
    details:
      - The module changes nothing.
  idempotent:
    support: full
    details:
      - The module changes nothing.
"""
