# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.host_keys import HostKeyError, checked_host_keys


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


ED = f"ssh-ed25519 {blob(b'ssh-ed25519', b'k' * 32)}"
RSA = f"ssh-rsa {blob(b'ssh-rsa', bytes([1, 0, 1]), bytes([0]) + b'm' * 2048)}"
P256 = f"ecdsa-sha2-nistp256 {blob(b'ecdsa-sha2-nistp256', b'nistp256', b'p' * 65)}"
# What would make a key of somebody's good for the names of all nodes.
AUTHORITY = f"@cert-authority * {ED}"
HOSTILE: dict[str, t.Any] = {
    "no list": ED,
    "nothing": None,
    "too many": [ED] * 17,
    "no text": [{"key": ED}],
    "10 MB": [ED + " " * 10_000_000],
    "long": [f"ssh-rsa {blob(b'ssh-rsa', bytes([1, 0, 1]), b'm' * 10_000_000)}"],
    "empty": [""],
    "second line": [f"{ED}\n{AUTHORITY}"],
    "line after the last": [f"{ED}\n"],
    "second line after good ones": [ED, RSA, f"{P256}\n{AUTHORITY}"],
    "carriage return": [f"{ED}\r{AUTHORITY}"],
    **{
        f"separator {ord(separator):x}": [f"{ED}{separator}{AUTHORITY}", f"{ED} x{separator}{AUTHORITY}"]
        for separator in "\v\f\x1c\x1d\x1e\x85\u2028\u2029\0"
    },
    "marker": [AUTHORITY],
    "options": [f"cert-authority {ED}"],
    "names": [f"gpu-2,* {ED}"],
    "comment": [f"{ED} {AUTHORITY}"],
    "path for a type": [ED.replace("ssh-ed25519", "../../x", 1)],
    "path of a certificate": [ED.replace("ssh-ed25519", "../../x-cert-v01@openssh.com", 1)],
    "path in the key": [f"../../x {blob(b'../../x', b'k' * 32)}"],
    "certificate": [f"ssh-ed25519-cert-v01@openssh.com {blob(b'ssh-ed25519-cert-v01@openssh.com', b'k' * 32)}"],
    "type of another key": [ED.replace("ssh-ed25519", "ssh-rsa", 1)],
    "blob cut off": [ED[:-8]],
    "blob with more": [f"ssh-ed25519 {blob(b'ssh-ed25519', b'k' * 32, b'more')}"],
    "no blob": ["ssh-ed25519"],
    "no base64": ["ssh-ed25519 AAAA"],
    "template": ["{{ lookup('ansible.builtin.pipe', 'id') }}"],
    "key of a person": [f"sk-ssh-ed25519@openssh.com {blob(b'sk-ssh-ed25519@openssh.com', b'k' * 32, b'ssh:')}"],
    "private key": ["-----BEGIN OPENSSH PRIVATE KEY-----"],
}


def test_keys_are_taken_as_they_are() -> None:
    assert checked_host_keys([ED, RSA, P256], "gpu-1") == [ED, RSA, P256]
    assert checked_host_keys([], "gpu-1") == []


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_anything_else_is_refused(answer: t.Any) -> None:
    with pytest.raises(HostKeyError, match=r"was not taken: .+Next: ssh gpu-1 'head -v /etc/ssh/\*\.pub'") as caught:
        checked_host_keys(answer, "gpu-1")
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()
