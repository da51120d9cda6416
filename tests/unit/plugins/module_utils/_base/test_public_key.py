# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import PublicKey, PublicKeyError, parse_line
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = {
    "ed25519": ["-t", "ed25519"],
    "rsa1024": ["-t", "rsa", "-b", "1024"],
    "rsa2048": ["-t", "rsa", "-b", "2048"],
    "rsa3072": ["-t", "rsa", "-b", "3072"],
    "p256": ["-t", "ecdsa", "-b", "256"],
    "p384": ["-t", "ecdsa", "-b", "384"],
    "p521": ["-t", "ecdsa", "-b", "521"],
}


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


ED = blob(b"ssh-ed25519", b"k" * 32)
# Keys of hardware and of the past, which ssh-keygen makes only with the hardware and in the past.
MADE = {
    "sk-ed": "sk-ssh-ed25519@openssh.com " + blob(b"sk-ssh-ed25519@openssh.com", b"k" * 32, b"ssh:"),
    "dsa": "ssh-dss " + blob(b"ssh-dss", b"\0" + b"\xc1" * 128, b"\0" + b"\xc1" * 20, b"\x02", b"\x05" * 128),
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    for name, arguments in KINDS.items():
        command = ["ssh-keygen", "-q", "-N", "", "-C", f"{name}@laptop", *arguments, "-f", str(folder / name)]
        subprocess.run(command, check=True)
    return {name: folder / f"{name}.pub" for name in KINDS}


def listed(path: Path) -> list[str]:
    """What OpenSSH itself says: bits, fingerprint, comment, (kind)."""
    found = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], capture_output=True, text=True, check=False)
    return found.stdout.split()


@pytest.mark.parametrize("name", KINDS)
def test_fingerprint_bits_and_comment_are_those_of_ssh_keygen(keys: dict[str, Path], name: str) -> None:
    key = parse_line(keys[name].read_text())
    bits, fingerprint, comment, _kind = listed(keys[name])
    assert (key.fingerprint, key.comment, key.options) == (fingerprint, comment, "")
    if key.rsa_bits:
        assert str(key.rsa_bits) == bits


@pytest.mark.parametrize(
    ("name", "weakness"),
    [("ed25519", ""), ("p256", ""), ("rsa3072", ""), ("rsa2048", "RSA 2048 bits"), ("rsa1024", "RSA 1024 bits")],
)
def test_weak_keys_are_called_weak(keys: dict[str, Path], name: str, weakness: str) -> None:
    assert parse_line(keys[name].read_text()).weakness == weakness


@pytest.mark.parametrize(("name", "weakness"), [("sk-ed", ""), ("dsa", "DSA")])
def test_keys_of_hardware_and_of_the_past_are_read(tmp_path: Path, name: str, weakness: str) -> None:
    (tmp_path / "key.pub").write_text(MADE[name] + "\n")
    key = parse_line(MADE[name])
    assert key.weakness == weakness
    if name != "dsa":  # today's ssh-keygen may have forgotten it
        assert key.fingerprint == listed(tmp_path / "key.pub")[1]


@pytest.mark.parametrize(
    ("line", "options", "comment"),
    [
        (f"ssh-ed25519 {ED}", "", ""),
        (f"  ssh-ed25519\t {ED}  two  words \r\n", "", "two  words"),
        (f"restrict ssh-ed25519 {ED} c", "restrict", "c"),
        (f'command="a \\"b\\" c",from="10.0.0.0/8,!10.1.1.1" ssh-ed25519 {ED} c',
         'command="a \\"b\\" c",from="10.0.0.0/8,!10.1.1.1"', "c"),
        (f'command="ssh-rsa AAAA",pty\tssh-ed25519 {ED} c d', 'command="ssh-rsa AAAA",pty', "c d"),
    ],
)  # fmt: skip
def test_options_and_comment_are_told_from_the_key(line: str, options: str, comment: str) -> None:
    assert parse_line(line) == PublicKey("ssh-ed25519", ED, comment, options)


quoted = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12).filter(
    lambda text: not text.endswith("\\")
)
option = st.one_of(
    st.sampled_from(["restrict", "pty", "no-X11-forwarding", "cert-authority"]),
    st.tuples(st.sampled_from(["command", "from", "environment"]), quoted).map(
        lambda pair: '{}="{}"'.format(pair[0], pair[1].replace('"', '\\"'))
    ),
)
words = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20).map(str.strip)


@given(options=st.lists(option, max_size=4).map(",".join), comment=words)
def test_what_is_put_together_is_taken_apart_again(options: str, comment: str) -> None:
    line = f"{options} ssh-ed25519 {ED} {comment}"
    assert parse_line(line) == PublicKey("ssh-ed25519", ED, comment, options)


@settings(max_examples=60, deadline=None)
@given(options=st.lists(option, min_size=1, max_size=3).map(",".join))
def test_openssh_finds_the_same_key_behind_the_same_options(
    tmp_path_factory: pytest.TempPathFactory, options: str
) -> None:
    line = f"{options} ssh-ed25519 {ED} c"
    path = tmp_path_factory.getbasetemp() / "authorized_keys"
    path.write_text(line + "\n")
    assert listed(path)[1] == parse_line(line).fingerprint


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "empty line"),
        ("# ssh-ed25519", "comment"),
        ("<!DOCTYPE html>", "no public key"),
        ("Not Found", "no public key"),
        ("ssh-ed25519", "truncated"),
        (f"ssh-ed25519 {ED[:-1]}", "not base64"),
        (f"ssh-ed25519 {ED[:40]}", "truncated"),
        (f"ssh-ed25519 {ED[:10]}*{ED[11:]}", "not base64"),
        (f"ssh-rsa {ED}", "the line says ssh-rsa, the key itself says ssh-ed25519"),
        ("ssh-ed25519 " + blob(b"ssh-ed25519", b"k" * 31), "damaged"),
        ("ssh-ed25519 " + blob(b"ssh-ed25519", b"k" * 32, b""), "damaged"),
        ("ssh-rsa " + blob(b"ssh-rsa", b"\1\0\1"), "damaged"),
        (f"ssh-ed25519 {ED}\nssh-ed25519 {ED}", "more than one line"),
        (f'command="ls ssh-ed25519 {ED} c', "quote"),
        ("---- BEGIN SSH2 PUBLIC KEY ----", "ssh-keygen -i"),
        ("ssh-ed25519-cert-v01@openssh.com " + blob(b"ssh-ed25519-cert-v01@openssh.com", b"n"), "certificate"),
    ],
)
def test_what_is_no_key_is_refused_with_the_reason(line: str, reason: str) -> None:
    with pytest.raises(PublicKeyError, match=reason):
        parse_line(line)


def test_a_line_that_sshd_cannot_decode_is_refused(tmp_path: Path) -> None:
    """The same bytes with other bits in the padding: Python decodes them, OpenSSH does not."""
    kind = "sk-ssh-ed25519@openssh.com"
    good = blob(kind.encode(), b"k" * 32, b"ssh:ab")
    assert good.endswith("=")
    last = good.rstrip("=")[-1]
    bad = good.rstrip("=")[:-1] + chr(ord(last) + 1) + "=" * good.count("=")
    (tmp_path / "key.pub").write_text(f"{kind} {bad}\n")
    assert not listed(tmp_path / "key.pub")
    with pytest.raises(PublicKeyError, match="not base64"):
        parse_line(f"{kind} {bad}")


def test_a_private_key_is_recognised_line_by_line_and_never_repeated(keys: dict[str, Path]) -> None:
    text = keys["ed25519"].with_suffix("").read_text()
    for line in [text, *text.splitlines()]:
        with pytest.raises(PublicKeyError) as error:
            parse_line(line)
        assert not any(body in str(error.value) for body in text.splitlines()[1:-1])
    with pytest.raises(PublicKeyError, match="PRIVATE key"):
        parse_line(text.splitlines()[1])


@given(st.text(max_size=60))
def test_any_text_is_a_key_or_an_error(text: str) -> None:
    with pytest.raises(PublicKeyError):
        parse_line(text)
    with pytest.raises(PublicKeyError):
        parse_line(f"ssh-ed25519 {text}")
