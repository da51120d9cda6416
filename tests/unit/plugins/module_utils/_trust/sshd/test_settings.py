# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import settings
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.effective import (
    Effective,
    parse_effective,
    plain,
)
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.settings import Block, Login, SshdError

DROP_IN = "/etc/ssh/sshd_config.d/00-gpuops.conf"
FOLDER = "/etc/ssh/sshd_config.d/*.conf"
ROOT = Login("root", "192.0.2.9", "10.0.0.1", 22, 0, ("root",))
BOB = Login("bob", "192.0.2.9", "10.0.0.1", 22, 1000, ("bob", "gpu"))
# What an sshd says that nobody has touched, as far as it matters here.
OPEN = """port 22
permitrootlogin yes
pubkeyauthentication yes
authenticationmethods any
forcecommand none
revokedkeys none
trustedusercakeys none
authorizedkeyscommand none
authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2
pubkeyacceptedalgorithms ssh-ed25519,rsa-sha2-512
"""


def effective(*changes: str) -> Effective:
    keywords = [change.split()[0] for change in changes]
    kept = [line for line in OPEN.splitlines() if line.split()[0] not in keywords]
    return parse_effective("\n".join([*kept, *changes]))


def refusals(login: Login, *changes: str, kind: str = "ssh-ed25519") -> list[str]:
    def key_types(path: str) -> list[str]:
        return [kind] if path == ".ssh/authorized_keys" else []

    return settings.refusals(effective(*changes), login, [22], key_types, lambda path: path == "/there")


def test_untouched_sshd_refuses_nobody() -> None:
    assert (refusals(ROOT), refusals(BOB)) == ([], [])


@pytest.mark.parametrize(
    ("login", "change", "words"),
    [
        (ROOT, "permitrootlogin no", "PermitRootLogin no"),
        (ROOT, "permitrootlogin forced-commands-only", "PermitRootLogin forced-commands-only"),
        (BOB, "pubkeyauthentication no", "PubkeyAuthentication no"),
        (BOB, "allowusers root", "AllowUsers root"),
        (BOB, "allowusers bobby", "AllowUsers bobby"),
        (BOB, "allowusers bob@10.*", "AllowUsers bob@10.*"),
        (BOB, "allowusers bob@10.0.0.0/8", "AllowUsers bob@10.0.0.0/8"),
        (BOB, "denyusers b*", "DenyUsers b*"),
        (BOB, "denyusers *@192.0.2.0/24", "DenyUsers *@192.0.2.0/24"),
        (BOB, "allowgroups wheel", "AllowGroups wheel"),
        (BOB, "denygroups gpu", "DenyGroups gpu"),
        (BOB, "authenticationmethods publickey,keyboard-interactive", "which wants more than a key"),
        (BOB, "authenticationmethods password", "which wants more than a key"),
        (BOB, "forcecommand /bin/false", "ForceCommand /bin/false"),
        (BOB, "maxsessions 0", "MaxSessions 0, so that nothing can be run"),
        (BOB, "refuseconnection yes", "RefuseConnection yes"),
        (BOB, "revokedkeys /gone", "RevokedKeys /gone, which cannot be read"),
        (
            BOB,
            "authorizedkeysfile /etc/ssh/keys/%u",
            "AuthorizedKeysFile /etc/ssh/keys/%u, and there is no key for bob",
        ),
        (BOB, "authorizedkeysfile none", "there is no key for bob"),
        (BOB, "pubkeyacceptedalgorithms rsa-sha2-512", "PubkeyAcceptedAlgorithms without the keys of bob: ssh-ed25519"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_lock_out_is_foreseen(login: Login, change: str, words: str) -> None:
    (reason,) = refusals(login, change)
    assert words in reason


@pytest.mark.parametrize(
    ("login", "change"),
    [
        (BOB, "permitrootlogin no"),
        (ROOT, "permitrootlogin without-password"),
        (BOB, "allowusers b?b"),
        (BOB, "allowusers root bob@192.0.2.*"),
        (BOB, "allowusers bob@192.0.2.0/24"),
        (BOB, "denyusers bob@10.0.0.0/8"),
        (BOB, "allowgroups wheel gpu"),
        (BOB, "authenticationmethods publickey,password publickey"),
        (BOB, "maxsessions 1"),
        (BOB, "revokedkeys /there"),
        (BOB, "authorizedkeysfile /etc/keys/%u .ssh/authorized_keys"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_alarm_without_a_reason(login: Login, change: str) -> None:
    assert refusals(login, change) == []


def test_several_lines_of_one_keyword_are_one_list() -> None:
    assert refusals(BOB, "allowusers root", "allowusers bob") == []


def test_keys_may_come_from_elsewhere() -> None:
    for elsewhere in ("trustedusercakeys /etc/ssh/ca.pub", "authorizedkeyscommand /usr/bin/keys"):
        assert refusals(BOB, "authorizedkeysfile none", elsewhere) == []


def test_rsa_key_is_taken_with_either_hash() -> None:
    assert refusals(BOB, kind="ssh-rsa") == []
    assert refusals(BOB, "pubkeyacceptedalgorithms ssh-ed25519", kind="ssh-rsa")


def test_port_that_is_closed() -> None:
    (reason,) = settings.refusals(effective(), BOB, [2222, 2223], lambda _path: ["ssh-ed25519"], lambda _path: True)
    assert reason == "Port 2222 2223, and this login comes to port 22"


def test_key_types() -> None:
    blob = "AAAAC3NzaC1lZDI1NTE5AAAAI"
    text = (
        f"# ssh-dss {blob}\n"
        f"ssh-ed25519 {blob} me\n"
        f'from="10.0.0.1",command="echo hi" ssh-rsa {blob}\n'
        f"restrict sk-ssh-ed25519@openssh.com {blob}\n"
        "no key at all\n"
    )
    assert settings.key_types(text) == ["ssh-ed25519", "ssh-rsa", "sk-ssh-ed25519@openssh.com"]


def test_algorithms_are_those_that_are_there_in_the_wanted_order() -> None:
    wanted = {"KexAlgorithms": ["mlkem", "sntrup", "curve"]}
    assert settings.choose_algorithms(wanted, {"KexAlgorithms": ["curve", "old", "sntrup"]}) == {
        "KexAlgorithms": "sntrup,curve"
    }
    with pytest.raises(SshdError, match="this OpenSSH has none of the KexAlgorithms that this change asks for: mlkem"):
        settings.choose_algorithms({"KexAlgorithms": ["mlkem"]}, {"KexAlgorithms": ["curve"]})


def test_keywords_follow_what_this_sshd_knows() -> None:
    wanted = {"PubkeyAcceptedAlgorithms": "x", "RequiredRSASize": "2048", "MaxAuthTries": "4"}
    old = parse_effective("pubkeyacceptedkeytypes y\nmaxauthtries 6")
    assert settings.settle(wanted, old) == (
        {"PubkeyAcceptedKeyTypes": "x", "MaxAuthTries": "4"},
        ["RequiredRSASize"],
    )
    new = parse_effective("pubkeyacceptedalgorithms y\nrequiredrsasize 1024")
    assert settings.settle(wanted, new) == (wanted, [])


def test_drop_in() -> None:
    text = settings.render(
        "one\ntwo",
        {"Port": "22 2222", "AllowUsers": "a b", "HostCertificate": "/a /b"},
        [Block("User *,!a", {"MaxAuthTries": "2"})],
    )
    assert text == (
        "# one\n# two\nPort 22\nPort 2222\nAllowUsers a b\nHostCertificate /a\nHostCertificate /b\n\n"
        "Match User *,!a\n    MaxAuthTries 2\n"
    )


@pytest.mark.parametrize(
    ("value", "text"), [(True, "yes"), (False, "no"), (60, "60"), (["a", 1], "a 1"), ("local", "local")]
)
def test_values_of_yaml(value: object, text: str) -> None:
    assert settings.words(value) == text


def test_what_is_not_in_force() -> None:
    now = parse_effective("maxauthtries 6\npermitrootlogin without-password\nallowusers b\nallowusers a\nport 22")
    assert settings.differing({"PermitRootLogin": "prohibit-password", "AllowUsers": "a b", "Port": "22"}, now) == {}
    assert settings.differing({"MaxAuthTries": "4", "Port": "22 23", "Banner": "/x"}, now) == {
        "MaxAuthTries": "6",
        "Port": "22",
        "Banner": "nothing",
    }


@pytest.mark.parametrize(
    ("keyword", "written", "said"),
    [
        ("LoginGraceTime", "2m", "120"),
        ("ClientAliveInterval", "1h30m", "5400"),
        ("PermitRootLogin", "without-password", "prohibit-password"),
        ("Banner", '"/etc/issue"', "/etc/issue"),
        ("RekeyLimit", "1G  1h", "1g 1h"),
        ("AllowUsers", "b a", "a b a"),
    ],
)
def test_one_value_may_be_spelled_in_several_ways(keyword: str, written: str, said: str) -> None:
    assert plain(keyword, written) == plain(keyword.lower(), said)
    assert settings.differing({keyword: written}, {keyword.lower(): [said]}) == {}


@pytest.mark.parametrize(("one", "other"), [("2m", "2"), ("yes", "no"), ("/a", "/b")])
def test_other_values_stay_others(one: str, other: str) -> None:
    assert plain("Banner", one) != plain("Banner", other)


def test_names_of_users_keep_their_case() -> None:
    assert plain("AllowUsers", "Bob") != plain("AllowUsers", "bob")


def test_host_certificate_that_somebody_else_has_named_too_is_in_force() -> None:
    now = parse_effective("hostcertificate /b\nhostcertificate /a\nhostcertificate /b")
    assert settings.differing({"HostCertificate": "/a /b"}, now) == {}
    assert settings.differing({"HostCertificate": "/a"}, now) == {"HostCertificate": "/b /a /b"}


@pytest.mark.parametrize(
    ("text", "there"),
    [
        (f"Include {FOLDER}\n", True),
        ("# comment\n\n  include = /etc/ssh/sshd_config.d/*.conf # ours\n", True),
        ("Include sshd_config.d/*.conf\n", True),
        (f'Include /etc/other.conf "{FOLDER}"\n', True),
        (f"Include {DROP_IN}\n", True),
        (f"# Include {FOLDER}\n", False),
        ("Include /etc/ssh/other.d/*.conf\n", False),
        (f"Match User bob\nInclude {FOLDER}\n", False),
        # By the rule of glob(3), a wildcard takes no slash.
        ("Include /etc/ssh/*.conf\n", False),
        ("Include /etc/*/00-gpuops.conf\n", False),
        ("Include *.conf\n", False),
        ("Include */*.conf\n", True),
        ("Include /etc/ssh/sshd_config?d/*.conf\n", True),
        ("Include /etc/ssh/sshd_config[.]d/[0-9]*.conf\n", True),
        ("Include /etc/ssh/sshd_config.d/[!0]*.conf\n", False),
        ("Include /etc/ssh/sshd_config.d[/]00-gpuops.conf\n", False),
        ("", False),
    ],
)
def test_main_file_that_includes_the_drop_in(text: str, there: bool) -> None:
    assert settings.includes(text, DROP_IN) is there


def expand(*names: str) -> t.Callable[[str], list[str]]:
    return lambda pattern: [f"/etc/ssh/sshd_config.d/{name}" for name in names] if "*" in pattern else [pattern]


def test_a_change_is_tried_in_the_place_of_the_drop_in() -> None:
    text = f"Port 22\nInclude {FOLDER}\nMatch User bob\n"
    tried = settings.with_other_drop_in(text, DROP_IN, "/tmp/x", expand("50-b.conf", "00-a.conf", "00-gpuops.conf"))
    folder = "/etc/ssh/sshd_config.d"
    assert tried == f"Port 22\nInclude {folder}/00-a.conf /tmp/x {folder}/50-b.conf\nMatch User bob\n"
    assert settings.with_other_drop_in(text, DROP_IN, "/tmp/x", expand()) == "Port 22\nInclude /tmp/x\nMatch User bob\n"
    assert settings.with_other_drop_in(text, DROP_IN, None, expand("00-gpuops.conf")) == "Port 22\n\nMatch User bob\n"
    assert settings.with_other_drop_in(f"Include {DROP_IN}\n", DROP_IN, "/tmp/x", expand()) == "Include /tmp/x\n"


MAIN = f"""MaxAuthTries 9
Include {FOLDER}
Match User bob
    MaxAuthTries 8
    PasswordAuthentication yes
Match all
Port 23
"""
FILES = {
    "/etc/ssh/sshd_config.d/00-a.conf": "Banner /a\nMatch Group g\n  X11Forwarding yes\n",
    DROP_IN: "MaxAuthTries 4\nBanner none\nPort 22\nX11Forwarding no\nPasswordAuthentication no\n",
    "/etc/ssh/sshd_config.d/50-b.conf": "maxauthtries = 7\nPasswordAuthentication yes\n",
}
DIRECTIVES = settings.read_directives(
    "/etc/ssh/sshd_config", MAIN, lambda pattern: list(FILES) if "*" in pattern else [], FILES.__getitem__
)


@pytest.mark.parametrize(
    ("keyword", "lines"),
    [
        (
            "MaxAuthTries",
            ["/etc/ssh/sshd_config:1: MaxAuthTries 9", "/etc/ssh/sshd_config:4: Match User bob: MaxAuthTries 8"],
        ),
        ("Banner", ["/etc/ssh/sshd_config.d/00-a.conf:1: Banner /a"]),
        ("X11Forwarding", ["/etc/ssh/sshd_config.d/00-a.conf:3: Match Group g: X11Forwarding yes"]),
        ("Port", ["/etc/ssh/sshd_config:7: Port 23"]),
        ("LogLevel", []),
    ],
)
def test_who_else_sets_it(keyword: str, lines: list[str]) -> None:
    assert [str(line) for line in settings.foreign(keyword, DIRECTIVES, DROP_IN)] == lines


def test_exceptions_of_others_are_named() -> None:
    wanted = {"MaxAuthTries": "8", "PasswordAuthentication": "no", "X11Forwarding": "no"}
    assert [str(line) for line in settings.exceptions(wanted, DIRECTIVES, DROP_IN)] == [
        "/etc/ssh/sshd_config.d/00-a.conf:3: Match Group g: X11Forwarding yes",
        "/etc/ssh/sshd_config:5: Match User bob: PasswordAuthentication yes",
    ]


def test_file_that_includes_itself_ends() -> None:
    found = settings.read_directives(
        "/m", "Include /m\nPort 1\n", lambda pattern: [pattern], lambda _path: "Include /m\n"
    )
    assert [line.keyword for line in found] == ["Port"]


def test_small_moduli() -> None:
    text = "# Time Type\n2023 2 6 100 2047 2 AA\n2023 2 6 100 3071 2 BB\n2023 2 6 100 8191 5 CC\nodd line\n"
    assert settings.without_small_moduli(text, 3072) == text.replace("2023 2 6 100 2047 2 AA\n", "")
