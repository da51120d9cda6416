# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One line of authorized_keys or of a .pub file, read the way sshd reads it.

This module util is PRIVATE to the collection. Messages never repeat the line: it may be a private key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

# What follows the kind in the blob of each kind of key: the sizes of the fields; None where it varies.
_FIELDS: dict[str, tuple[int | None, ...]] = {
    "ssh-ed25519": (32,),
    "ssh-rsa": (None, None),
    "ssh-dss": (None, None, None, None),
    "ecdsa-sha2-nistp256": (8, 65),
    "ecdsa-sha2-nistp384": (8, 97),
    "ecdsa-sha2-nistp521": (8, 133),
    "sk-ssh-ed25519@openssh.com": (32, None),
    "sk-ecdsa-sha2-nistp256@openssh.com": (8, 65, None),
}
_CERTIFICATE = "-cert-v01@openssh.com"
# The last one is how the body of an OpenSSH private key begins.
_PRIVATE = re.compile(r"-----BEGIN .*PRIVATE KEY|PuTTY-User-Key-File|b3BlbnNzaC1rZXktdj")
_GOOD_RSA_BITS = 3072
_BLANKS = re.compile(r"[ \t]+")
# As sshd skips options: blanks within quotes are part of them, and \" is no quote.
_OPTIONS = re.compile(r'(?:\\"|"(?:\\"|[^"])*"|[^ \t"])+')


class PublicKeyError(ValueError):
    """Not the line of a public key, with the reason."""


@dataclass(frozen=True)
class PublicKey:
    """A public key: `blob` is its base64 text, `options` the text before the kind, as it stands there."""

    kind: str
    blob: str
    comment: str = ""
    options: str = ""

    @property
    def fingerprint(self) -> str:
        """Return the SHA256 fingerprint as ssh-keygen -l and the log of sshd show it."""
        return fingerprint_of(base64.b64decode(self.blob))

    @property
    def rsa_bits(self) -> int:
        """The size of an RSA key; 0 for others."""
        if self.kind != "ssh-rsa":
            return 0
        _kind, _exponent, modulus = _fields(base64.b64decode(self.blob))
        return int.from_bytes(modulus, "big").bit_length()

    @property
    def weakness(self) -> str:
        """Return why the key should be replaced, empty for a good one."""
        if self.kind == "ssh-dss":
            return "DSA"
        if self.kind == "ssh-rsa" and self.rsa_bits < _GOOD_RSA_BITS:
            return f"RSA {self.rsa_bits} bits"
        return ""


def file_named(entry: str) -> str:
    """The file on the control node that an entry of somebody's keys names; nothing when it is a key itself."""
    return entry.strip() if entry.lstrip().startswith(("/", "~")) else ""


def fingerprint_of(public: bytes) -> str:
    """Return the bytes that the blob stands for."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")


def parse_line(text: str) -> PublicKey:
    """Read one line, raise PublicKeyError if it holds no public key."""
    line = text.strip(" \t\r\n")
    if _PRIVATE.match(line):
        raise PublicKeyError("this is a PRIVATE key; give the .pub file, and replace the key if others saw it")
    if not line or line.startswith("#"):
        raise PublicKeyError("an empty line or a comment")
    if "\n" in line or "\r" in line or "\0" in line:
        raise PublicKeyError("more than one line")
    if line.startswith("---- BEGIN SSH2"):
        raise PublicKeyError("a key in the format of RFC 4716; convert it with ssh-keygen -i -f FILE")
    options = ""
    if not _is_kind(line):
        found = _OPTIONS.match(line)
        options = found.group() if found else ""
        line = line[len(options) :]
        if line.startswith('"'):
            raise PublicKeyError("a quote in the options is never closed")
        line = line.lstrip(" \t")
        if not _is_kind(line):
            raise PublicKeyError("no public key: no kind of key such as ssh-ed25519 in it")
    kind, blob, comment = [*_BLANKS.split(line, maxsplit=2), "", ""][:3]
    _check(kind, blob)
    return PublicKey(kind, blob, comment, options)


def _is_kind(line: str) -> bool:
    kind = _BLANKS.split(line, maxsplit=1)[0]
    return kind in _FIELDS or kind.endswith(_CERTIFICATE)


def _check(kind: str, blob: str) -> None:
    if kind.endswith(_CERTIFICATE):
        raise PublicKeyError("a certificate, not a public key")
    if not blob:
        raise PublicKeyError(f"truncated: nothing follows {kind}")
    try:
        data = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    # sshd refuses stray bits in the last character, which Python lets pass.
    if base64.b64encode(data).decode() != blob:
        raise PublicKeyError(f"not base64, or truncated: what follows {kind}")
    try:
        fields = _fields(data)
    except IndexError:
        raise PublicKeyError("truncated: the key ends too early") from None
    own = fields[0].decode("ascii", "replace")
    if own != kind:
        shown = own if own in _FIELDS else "no kind of key that is known"
        raise PublicKeyError(f"the line says {kind}, the key itself says {shown}")
    sizes = _FIELDS[kind]
    if len(fields) != 1 + len(sizes) or any(size not in (None, len(field)) for size, field in zip(sizes, fields[1:])):
        raise PublicKeyError(f"damaged: not the fields of a key of the kind {kind}")


def _fields(data: bytes) -> list[bytes]:
    fields: list[bytes] = []
    while data or not fields:
        end = 4 + int.from_bytes(data[:4], "big")
        if len(data) < end or len(data) < 4:
            raise IndexError
        fields.append(data[4:end])
        data = data[end:]
    return fields
