# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import firewall, guard
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.settings import Login, SshdError

INSIDE = Login("bob", "10.1.2.3", "10.0.0.1", 22, 1000, ("bob",))


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., None]:
    """The check on a machine that has nft and systemd; nft answers with a code."""
    monkeypatch.setattr(firewall, "has_systemd", lambda: True)
    monkeypatch.setattr(firewall.shutil, "which", lambda _name, path: "/usr/sbin/nft")

    def check(*networks: str, login: Login = INSIDE, code: int = 0) -> None:
        firewall.check(networks, [login], "/staged", lambda _command: (code, "syntax error\n"))

    return check


def test_rules() -> None:
    text = firewall.render(["10.0.0.0/8", "192.0.2.7", "fd00::/8"], [22, 2222])
    for line in (
        'iifname "lo" accept',
        "ct state established,related accept",
        "ip saddr { 10.0.0.0/8, 192.0.2.7/32 } accept",
        "ip6 saddr { fd00::/8 } accept",
        "tcp dport { 22, 2222 } drop",
    ):
        assert f"        {line}\n" in text
    assert "ip6" not in firewall.render(["10.0.0.0/8"], [22])


def test_text_that_is_no_network() -> None:
    with pytest.raises(SshdError, match=r"'nonsense' does not appear.*wanted networks such as"):
        firewall.render(["nonsense"], [22])


def test_login_that_would_be_dropped(checked: t.Callable[..., None]) -> None:
    checked("10.0.0.0/8")
    checked("192.0.2.0/24", "10.1.2.3")
    checked("192.0.2.0/24", login=Login("bob", "127.0.0.1", "127.0.0.1", 22, 1000, ()))
    with pytest.raises(SshdError, match="would drop bob from 10.1.2.3: not in 192.0.2.0/24, fd00::/8"):
        checked("192.0.2.0/24", "fd00::/8")


def test_rules_that_nft_rejects(checked: t.Callable[..., None]) -> None:
    with pytest.raises(SshdError, match="nft rejects the rules: syntax error"):
        checked("10.0.0.0/8", code=1)


def test_machine_without_nft(checked: t.Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall.shutil, "which", lambda _name, path: None)
    with pytest.raises(SshdError, match="Next: on the node: apt-get install nftables"):
        checked("10.0.0.0/8")


@pytest.mark.parametrize("was_there", [True, False])
def test_way_back_includes_the_rules(was_there: bool) -> None:
    script = guard.restore_script({firewall.RULES: was_there}, [], None)
    assert (f"\nnft -f {firewall.RULES}\n" in script) is was_there
    assert ("\nnft delete table inet gpuops_ssh\n" in script) is not was_there


def test_unit_loads_the_rules_that_are_written() -> None:
    assert f"ExecStart=/usr/sbin/nft -f {firewall.RULES}\n" in firewall.UNIT_TEXT
    assert Path(firewall.UNIT).name in firewall.commands(True)[-1]
