# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A second opinion on an SSH server, where OpenSSH's client cannot give one: that of paramiko, if it is installed.

This plugin util is PRIVATE to the collection.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import logging
import socket
from dataclasses import dataclass

from ansible_collections.gpuops.fleet.plugins.module_utils._base.kexinit import Algorithms

# Ansible loads action plugins before it forks, so this is paid once for all hosts.
try:
    import paramiko
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True
    # Without a handler, Python prints what paramiko logs, with a traceback.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Opinion:
    """Result of a connection of paramiko; `failure` is empty when the server named its methods."""

    fingerprint: str | None = None
    methods: tuple[str, ...] | None = None
    failure: str = ""


@functools.cache
def algorithms() -> Algorithms:
    """Return the algorithms that paramiko offers."""
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.closing(paramiko.Transport(ours)) as transport:
        options = transport.get_security_options()
        return Algorithms(options.kex, options.key_types, options.ciphers, options.digests)


def ask(connection: socket.socket, user: str, timeout: float) -> Opinion:
    """Ask a server for its host key and for the methods it offers to a user, with one attempt that gives no secret."""
    fingerprint = None
    with contextlib.closing(paramiko.Transport(connection)) as transport:
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = timeout
        try:
            transport.start_client(timeout=timeout)
            digest = hashlib.sha256(transport.get_remote_server_key().asbytes()).digest()
            fingerprint = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
            transport.auth_none(user)
        except paramiko.BadAuthenticationType as refused:
            return Opinion(fingerprint, tuple(refused.allowed_types))
        except (paramiko.SSHException, OSError, EOFError) as error:
            return Opinion(fingerprint, failure=str(error) or type(error).__name__)
    return Opinion(fingerprint, ("none",))
