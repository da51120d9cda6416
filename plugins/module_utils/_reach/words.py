# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may stand in the words that ssh is given: the alias, address, user and jump hosts of a node.

This module util is PRIVATE to the collection. ssh hands these words on to shells (for ProxyJump, and as C(%h) and
C(%r) of ProxyCommand and Match exec), takes a leading dash for an option, and a wildcard in a Host line for all names.
Source: valid_hostname() and valid_ruser() of OpenSSH 9.6, which look at the words of the command line only, not at
those of a configuration.
"""

from __future__ import annotations

import re

ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
PORT = re.compile(r"[0-9]{1,5}\Z")
JUMP = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[^:]*))?\Z")
_OF_SHELLS = frozenset("'`\"$;&<>|(){}#")
_REFUSED_IN_ADDRESS = _OF_SHELLS | frozenset("\\,")


def alias_fault(name: object) -> str:
    """Return what is wrong with the short name of a node, or an empty text."""
    return (
        ""
        if ALIAS.match(str(name))
        else "is not made of letters, digits, '_', '.' and '-', with a letter or digit first"
    )


def address_fault(address: str) -> str:
    """Return what is wrong with a host name or an IP address, or an empty text."""
    return _fault(address, _REFUSED_IN_ADDRESS)


def user_fault(user: str) -> str:
    """Return what is wrong with the name of a user, or an empty text. DOMAIN\\user is one."""
    return _fault(user, _OF_SHELLS) or ("ends with '\\'" if user.endswith("\\") else "")


def jump_fault(jumps: str) -> str:
    """Return what is wrong with a value of ProxyJump, or an empty text: [user@]host[:port] with commas between them."""
    for jump in jumps.split(","):
        user, at, place = re.sub(r"\Assh://", "", jump).rpartition("@")
        found = JUMP.match(place.rstrip("/"))
        fault = (address_fault(user) if at else "") or address_fault(place)
        if not fault and not found:
            fault = "is not [user@]host[:port]"
        elif not fault and found and found["port"] is not None:
            fault = port_fault(found["port"])
        if fault:
            return fault
    return ""


def port_fault(port: object) -> str:
    """Return what is wrong with a port, number or text, or an empty text."""
    return "" if PORT.match(str(port)) and 1 <= int(str(port)) <= 65535 else "is not a whole number from 1 to 65535"


def _fault(word: str, refused: frozenset[str]) -> str:
    if not word:
        return "is empty"
    if word[0] in "-=":
        return f"starts with {word[0]!r}"
    bad = next((char for char in word if char in refused or char.isspace() or not char.isprintable()), "")
    return "holds a blank" if bad == " " else f"holds {bad!r}" if bad else ""
