# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log in as root with a library of Python's, and print the name of the user: python_client.py LIBRARY HOST PORT KEY"""

from __future__ import annotations

import sys


def by_paramiko(host: str, port: int, key: str) -> str:
    import paramiko

    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(host, port, "root", key_filename=key, allow_agent=False, look_for_keys=False)
        return str(client.exec_command("id -un")[1].read().decode())


def by_asyncssh(host: str, port: int, key: str) -> str:
    import asyncio

    import asyncssh

    async def log_in() -> str:
        options = {"username": "root", "client_keys": [key], "known_hosts": None, "config": None}
        async with asyncssh.connect(host, port, **options) as client:
            return str((await client.run("id -un", check=True)).stdout)

    return asyncio.run(log_in())


def main() -> None:
    library, host, port, key = sys.argv[1:]
    print({"paramiko": by_paramiko, "asyncssh": by_asyncssh}[library](host, int(port), key))


if __name__ == "__main__":
    main()
