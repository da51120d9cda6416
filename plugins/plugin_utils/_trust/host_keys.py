# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The public host keys that a node says it has.

This plugin util is PRIVATE to the collection. They go into known_hosts, and the host CA signs them. A node is a
stranger: a second line would be for the names of all nodes, and a type with slashes names a file elsewhere.
"""

from __future__ import annotations

from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import ProblemError
from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import PublicKeyError, parse_line
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.ca import bare

_KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_MOST = 16
# More than an RSA key of 16384 bits, the longest that OpenSSH takes.
_LONGEST = 4096
_REFUSED = "what it says of its host keys was not taken"


class HostKeyError(ProblemError):
    """Raised for an answer that has not the form of host keys."""


def checked_host_keys(answer: object, host: str) -> list[str]:
    """The keys of a node's answer, each written anew from what was read."""
    try:
        if not isinstance(answer, list) or len(answer) > _MOST:
            raise PublicKeyError(f"no list of at most {_MOST}")
        return [_checked(text) for text in answer]
    except PublicKeyError as error:
        raise HostKeyError(_REFUSED, str(error), f"ssh {host} 'head -v /etc/ssh/*.pub'") from None


def _checked(text: object) -> str:
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise PublicKeyError(f"no text of at most {_LONGEST} characters")
    key = parse_line(text)
    if key.kind not in _KINDS:
        raise PublicKeyError("no kind of key that a host has")
    if bare(key) != text:
        raise PublicKeyError("more than a type and a key")
    return bare(key)
