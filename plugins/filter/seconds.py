# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: seconds
short_description: "[INTERNAL] Convert a duration of OpenSSH to seconds"
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Used by the roles of this collection only; it may change without notice.
  - Reads a duration as C(sshd_config) and C(ssh-keygen) take it, in weeks, days, hours, minutes and seconds.
options:
  _input:
    description: The duration. A number without a unit means seconds.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show a third of the lifetime of a certificate
  ansible.builtin.debug:
    msg: "{{ '1w2d' | gpuops.fleet.seconds // 3 }}"
"""

RETURN = r"""
_value:
  description: The seconds.
  type: int
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.fleet.plugins.module_utils._base.duration import DurationError, seconds


def convert(value: object) -> int:
    """Return the seconds of a duration."""
    try:
        return seconds(str(value))
    except DurationError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, t.Callable[[object], int]]:
        return {"seconds": convert}
