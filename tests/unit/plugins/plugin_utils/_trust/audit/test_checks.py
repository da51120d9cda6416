# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.access import (
    Access,
    Account,
    Effective,
    FileMode,
    Key,
    Logins,
    MatchLine,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.checks import (
    CHECKS,
    SEVERITIES,
    BaselineError,
    apply_baseline,
    audit,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.findings import Names
from ansible_collections.gpuops.fleet.plugins.plugin_utils._trust.audit.judges.sshd import password_methods
from places import REPOSITORY

NAMES = Names("gpu-1", "node-1")
FOREIGN, CONTROLLER = "203.0.113.1", "10.0.0.1"
SETTINGS = {
    "authenticationmethods": "any",
    "ciphers": "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes256-ctr",
    "hostbasedauthentication": "no",
    "hostkeyalgorithms": "ssh-ed25519,rsa-sha2-512",
    "kbdinteractiveauthentication": "no",
    "kexalgorithms": "sntrup761x25519-sha512@openssh.com,curve25519-sha256,diffie-hellman-group-exchange-sha256",
    "logingracetime": "60",
    "loglevel": "VERBOSE",
    "macs": "hmac-sha2-512-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256",
    "maxauthtries": "4",
    "maxsessions": "10",
    "maxstartups": "10:30:60",
    "passwordauthentication": "no",
    "permitemptypasswords": "no",
    "permitrootlogin": "without-password",
    "permituserenvironment": "no",
    "strictmodes": "yes",
    "usepam": "yes",
    "x11forwarding": "no",
}
ALICE = Key(256, "SHA256:alice", "alice@laptop", "ED25519")
BOB = Key(3072, "SHA256:bob", "bob@laptop", "RSA")


def effective(user: str, address: str, match: MatchLine | None = None, **changed: str) -> Effective:
    settings = {keyword: (value,) for keyword, value in {**SETTINGS, **changed}.items()}
    return Effective(user, address, settings, match=match)


def everywhere(**changed: str) -> tuple[Effective, ...]:
    return tuple(effective(user, address, **changed) for user in ("root", "gpu") for address in (FOREIGN, CONTROLLER))


def account(name: str, uid: int, *keys: Key, mode: int = 0o700) -> Account:
    home = "/root" if uid == 0 else f"/home/{name}"
    paths = (FileMode(home, mode, uid), FileMode(f"{home}/.ssh", 0o700, uid))
    return Account(name, uid, uid, home, paths, ((f"{home}/.ssh/authorized_keys", keys),))


GOOD = Access(
    uid=0,
    login="gpu",
    client=CONTROLLER,
    sshd="/usr/sbin/sshd",
    superusers=("root",),
    passwords=(("root", "locked"), ("gpu", "set")),
    accounts=(account("root", 0, BOB), account("gpu", 1000, ALICE)),
    files=(FileMode("/etc/ssh", 0o755, 0), FileMode("/etc/ssh/sshd_config", 0o644, 0)),
    drop_in="PasswordAuthentication no\nLoginGraceTime 1m\nPermitRootLogin prohibit-password",
    effective=everywhere(),
    loaded=1700000000,
    host_keys=(Key(256, "SHA256:host", "", "ED25519"),),
    host_key_files=(FileMode("/etc/ssh/ssh_host_ed25519_key", 0o600, 0),),
    moduli=((3072, 70), (4096, 60)),
    logins=Logins("journal", ((3, "2026-11-23T02:00:34+0000", "gpu", CONTROLLER),), ((2, "2026-11-22", "", FOREIGN),)),
    journal="persistent",
)
IN_MATCH = MatchLine("/etc/ssh/sshd_config:12", "User backup")
# Only the report, which knows all nodes, can judge this one.
LEFT_TO_THE_REPORT = "host_key_shared"


def judged(access: Access, baseline: dict[str, t.Any] | None = None) -> dict[str, dict[str, str]]:
    return {check["id"]: check for check in audit(access, NAMES, apply_baseline(baseline or {}))}


def not_ok(access: Access, baseline: dict[str, t.Any] | None = None) -> dict[str, str]:
    found = {name: check["status"] for name, check in judged(access, baseline).items() if check["status"] != "ok"}
    assert found.pop(LEFT_TO_THE_REPORT) == "unknown"
    return found


def with_file(path: str, mode: int, uid: int) -> Access:
    return replace(GOOD, files=(*GOOD.files, FileMode(path, mode, uid)))


def with_gpu(*keys: Key, mode: int = 0o700) -> Access:
    return replace(GOOD, accounts=(GOOD.accounts[0], account("gpu", 1000, *keys, mode=mode)))


def in_match(**changed: str) -> Access:
    return replace(GOOD, effective=(*GOOD.effective, effective("backup", FOREIGN, IN_MATCH, **changed)))


def set_to(**changed: str) -> Access:
    """Without a drop-in that says otherwise."""
    return replace(GOOD, effective=everywhere(**changed), drop_in="LogLevel VERBOSE")


def test_nothing_is_wrong_with_a_node_in_order() -> None:
    assert not_ok(GOOD) == {}
    assert not [check["id"] for check in judged(GOOD).values() if check["status"] == "ok" and check["remedy"]]


# What was made wrong, the one check that fails, what it says, and what is to be typed.
WRONG: list[tuple[str, Access, str, str, str]] = [
    (
        "password",
        set_to(passwordauthentication="yes"),
        "password_login",
        "sshd takes password for gpu",
        'ansible gpu-1 -m shell -a "echo PasswordAuthentication no >> /etc/ssh/sshd_config.d/01-local.conf',
    ),
    (
        "pam",
        set_to(kbdinteractiveauthentication="yes"),
        "password_login",
        "sshd takes keyboard-interactive for gpu",
        "",
    ),
    (
        "password-from-one-address",
        replace(
            GOOD,
            effective=(*GOOD.effective[:3], effective("gpu", CONTROLLER, passwordauthentication="yes")),
            drop_in="LogLevel VERBOSE",
        ),
        "password_login",
        f"sshd takes password for gpu from {CONTROLLER}",
        "",
    ),
    (
        "password-in-match",
        in_match(passwordauthentication="yes"),
        "password_login",
        f"sshd takes password for backup from {FOREIGN} (/etc/ssh/sshd_config:12: Match User backup)",
        'ansible gpu-1 -m shell -a "sed -n 12,+9p /etc/ssh/sshd_config"',
    ),
    (
        "empty-password-login",
        in_match(permitemptypasswords="yes"),
        "empty_password_login",
        "PermitEmptyPasswords is yes",
        "",
    ),
    (
        "no-drop-in",
        replace(GOOD, drop_in=""),
        "drop_in",
        "there is no",
        "ansible-playbook site.yml --tags trust --limit gpu-1",
    ),
    (
        "tries",
        set_to(maxauthtries="6"),
        "max_auth_tries",
        "MaxAuthTries is 6 for every account",
        'ansible gpu-1 -m shell -a "echo MaxAuthTries 4 >> ',
    ),
    ("no-tries-said", set_to(maxauthtries=""), "max_auth_tries", "MaxAuthTries is not said for every account", ""),
    ("sessions", in_match(maxsessions="50"), "max_sessions", "MaxSessions is 50 for backup", "sed -n 12,+9p"),
    (
        "startups",
        set_to(maxstartups="10:30:100"),
        "max_startups",
        "MaxStartups is 10:30:100",
        "echo MaxStartups 10:30:60",
    ),
    ("startups-odd", set_to(maxstartups="10"), "max_startups", "MaxStartups is 10", ""),
    ("no-grace-limit", set_to(logingracetime="0"), "login_grace_time", "LoginGraceTime is 0", ""),
    ("grace", set_to(logingracetime="120"), "login_grace_time", "LoginGraceTime is 120", ""),
    ("quiet", replace(set_to(loglevel="QUIET"), drop_in="X11Forwarding no"), "log_level", "LogLevel is QUIET", ""),
    ("debug", replace(set_to(loglevel="DEBUG3"), drop_in="X11Forwarding no"), "log_level", "LogLevel is DEBUG3", ""),
    (
        "kex",
        set_to(kexalgorithms=SETTINGS["kexalgorithms"] + ",diffie-hellman-group14-sha1"),
        "weak_kex",
        "offers diffie-hellman-group14-sha1",
        "echo KexAlgorithms -diffie-hellman-group14-sha1 >>",
    ),
    ("cipher", set_to(ciphers="aes256-ctr,3des-cbc,aes256-cbc"), "weak_ciphers", "offers 3des-cbc, aes256-cbc", ""),
    (
        "mac",
        set_to(macs="hmac-sha2-256,hmac-sha1-etm@openssh.com,umac-64@openssh.com,hmac-md5"),
        "weak_macs",
        "offers hmac-sha1-etm@openssh.com, umac-64@openssh.com, hmac-md5",
        "",
    ),
    (
        "signature",
        set_to(hostkeyalgorithms="ssh-ed25519,ssh-rsa,ssh-dss"),
        "weak_signatures",
        "offers ssh-rsa, ssh-dss",
        "",
    ),
    (
        "quantum",
        set_to(kexalgorithms="curve25519-sha256"),
        "post_quantum_kex",
        "no post-quantum",
        "newer release of Debian",
    ),
    ("x11", set_to(x11forwarding="yes"), "x11_forwarding", "X11Forwarding is yes for every account", ""),
    ("strict-modes", set_to(strictmodes="no"), "strict_modes", "StrictModes is no", ""),
    ("hostbased", set_to(hostbasedauthentication="yes"), "hostbased", "HostbasedAuthentication is yes", ""),
    ("environment", set_to(permituserenvironment="yes"), "user_environment", "PermitUserEnvironment is yes", ""),
    (
        "revoked",
        replace(GOOD, effective=(replace(GOOD.effective[0], missing_files=("/etc/ssh/revoked",)),)),
        "revoked_keys",
        "/etc/ssh/revoked cannot be read, so sshd refuses every key",
        "ls -l /etc/ssh/revoked",
    ),
    (
        "changed-later",
        replace(GOOD, newer=((1700000060, "/etc/ssh/sshd_config"),)),
        "loaded",
        "changed after sshd read its files at 2023-11-14 22:13:20 UTC: /etc/ssh/sshd_config at 2023-11-14 22:14:20 UTC",
        "systemctl reload ssh",
    ),
    (
        "file-of-others",
        with_file("/etc/ssh/sshd_config.d/9 x.conf", 0o664, 0),
        "sshd_files",
        "9 x.conf (mode 0664, uid 0)",
        "chmod go-w '/etc/ssh/sshd_config.d/9 x.conf'",
    ),
    (
        "file-of-user",
        with_file("/etc/ssh/x", 0o644, 1000),
        "sshd_files",
        "/etc/ssh/x (mode 0644, uid 1000)",
        "chown root",
    ),
    (
        "host-key",
        replace(GOOD, host_key_files=(FileMode("/etc/ssh/k", 0o640, 0),)),
        "host_key_files",
        "(mode 0640, uid 0)",
        "chmod 0600 /etc/ssh/k",
    ),
    (
        "short-host-key",
        replace(GOOD, host_keys=(Key(2048, "SHA256:h", "", "RSA"),)),
        "host_keys_weak",
        "RSA 2048 SHA256:h",
        "",
    ),
    ("moduli", replace(GOOD, moduli=((2048, 5), (3072, 7))), "moduli", "5 of 12 moduli are below 3072 bits", "3071"),
    ("open-home", with_gpu(ALICE, mode=0o775), "key_files", "/home/gpu (mode 0775, uid 1000)", "chmod go-w /home/gpu"),
    (
        "short-key",
        with_gpu(ALICE, Key(2048, "SHA256:old", "old", "RSA")),
        "keys_weak",
        "RSA 2048 SHA256:old old of gpu",
        "ssh -t node-1 'editor /home/gpu/.ssh/authorized_keys'",
    ),
    ("dsa-key", with_gpu(Key(1024, "SHA256:dsa", "d", "DSA")), "keys_weak", "DSA 1024 SHA256:dsa d of gpu", ""),
    (
        "key-twice",
        with_gpu(ALICE, replace(ALICE, comment="again")),
        "keys_duplicate",
        "more than once: SHA256:alice of gpu",
        "",
    ),
    ("key-at-two", with_gpu(ALICE, BOB), "keys_shared", "SHA256:bob of root and gpu", ""),
    ("nameless", with_gpu(replace(ALICE, comment="")), "keys_without_comment", "SHA256:alice of gpu", ""),
    (
        "many-keys",
        with_gpu(*(Key(256, f"SHA256:{n}", "x", "ED25519") for n in range(21))),
        "keys_count",
        "21 keys of gpu",
        "",
    ),
    ("superuser", replace(GOOD, superusers=("root", "toor")), "superusers", "uid 0 too: toor", "ssh -t node-1 vipw"),
    (
        "empty-password",
        replace(GOOD, passwords=(*GOOD.passwords, ("guest", "empty"))),
        "empty_passwords",
        "no password is needed for guest",
        "passwd -l guest",
    ),
    ("no-key", with_gpu(), "password_without_key", "a password and no key: gpu", "passwd -l gpu"),
    (
        "attacker",
        replace(GOOD, logins=Logins("journal", (), ((101, "now", "", "198.51.100.7"),))),
        "failed_logins",
        "journal, 7 days: 198.51.100.7 101x, last now",
        "grep -F 198.51.100.7",
    ),
    ("volatile", replace(GOOD, journal="volatile"), "journal", "a restart of the node ends the trail", "mkdir"),
]


@pytest.mark.parametrize(
    ("access", "check", "evidence", "remedy"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_what_is_wrong_fails_one_check_alone(access: Access, check: str, evidence: str, remedy: str) -> None:
    skipped = {"drift": "skipped"} if check == "drop_in" else {}
    assert not_ok(access) == {check: "fail", **skipped}
    found = judged(access)[check]
    assert evidence in found["evidence"]
    assert remedy in found["remedy"]
    assert found["remedy"]


def test_every_check_that_judges_one_node_is_made_to_fail_here() -> None:
    elsewhere = {LEFT_TO_THE_REPORT, "drift", "root_login", "sshd_config", "logins"}
    assert {case[2] for case in WRONG} | elsewhere == {check.id for check in CHECKS}


@pytest.mark.parametrize(
    ("changed", "methods"),
    [
        ({}, []),
        ({"passwordauthentication": "yes"}, ["password"]),
        ({"kbdinteractiveauthentication": "yes", "usepam": "no"}, []),
        ({"passwordauthentication": "yes", "authenticationmethods": "publickey,password"}, []),
        ({"passwordauthentication": "yes", "authenticationmethods": "publickey password"}, ["password"]),
        (
            {"kbdinteractiveauthentication": "yes", "authenticationmethods": "keyboard-interactive:pam"},
            ["keyboard-interactive"],
        ),
    ],
)
def test_a_password_alone_lets_in_only_where_all_settings_agree(changed: dict[str, str], methods: list[str]) -> None:
    assert password_methods(effective("gpu", FOREIGN, **changed)) == methods


def test_root_gets_in_by_password_only_where_root_login_says_yes() -> None:
    changed = {"passwordauthentication": "yes"}
    assert password_methods(effective("root", FOREIGN, **changed)) == []
    assert password_methods(effective("root", FOREIGN, permitrootlogin="yes", **changed)) == ["password"]


@pytest.mark.parametrize(
    ("said", "expected", "status"),
    [
        ("yes", "prohibit-password", "fail"),
        ("prohibit-password", "prohibit-password", "ok"),
        ("without-password", "prohibit-password", "ok"),
        ("without-password", "no", "fail"),
        ("forced-commands-only", "prohibit-password", "ok"),
        ("no", "no", "ok"),
        ("perhaps", "yes", "fail"),
    ],
)
def test_root_login_is_no_laxer_than_expected(said: str, expected: str, status: str) -> None:
    access = set_to(permitrootlogin=said)
    assert judged(access, {"root_login": {"expect": expected}})["root_login"]["status"] == status


@pytest.mark.parametrize(
    ("written", "changed", "said"),
    [
        (
            "PasswordAuthentication no",
            {"passwordauthentication": "yes"},
            "passwordauthentication is yes for root, not no",
        ),
        ("LoginGraceTime 1m", {"logingracetime": "120"}, "logingracetime is 120 for root, not 1m"),
        ("AllowUsers gpu admin", {"allowusers": "gpu"}, "allowusers is gpu for root, not gpu admin"),
        ("KexAlgorithms a,b", {"kexalgorithms": "b"}, "kexalgorithms is b for root, not a,b"),
    ],
)
def test_drift_names_the_setting(written: str, changed: dict[str, str], said: str) -> None:
    access = replace(GOOD, drop_in=written, effective=everywhere(**changed))
    found = judged(access)["drift"]
    assert (found["status"], found["evidence"]) == ("fail", said)


@pytest.mark.parametrize(
    ("written", "changed"),
    [
        ("PermitRootLogin prohibit-password", {}),
        ("permitrootlogin  Prohibit-Password", {}),
        ("LoginGraceTime 1m", {}),
        ('Banner "/etc/issue.net"', {"banner": "/etc/issue.net"}),
        ("AllowUsers gpu", {"allowusers": "gpu"}),
        # In a form that sshd -T shows otherwise, or that this version does not know.
        ("KexAlgorithms +diffie-hellman-group14-sha1", {}),
        ("Port 2222", {"port": "22"}),
        ("ChallengeResponseAuthentication no", {}),
        ("# X11Forwarding yes", {}),
        ("Match User backup\n  X11Forwarding yes", {}),
        ("MaxAuthTries 3\nMatch User gpu\n  MaxAuthTries 4", {}),
    ],
)
def test_no_drift_where_only_the_spelling_differs(written: str, changed: dict[str, str]) -> None:
    assert judged(replace(GOOD, drop_in=written, effective=everywhere(**changed)))["drift"]["status"] == "ok"


def test_without_root_everything_is_unknown_and_the_remedy_is_one() -> None:
    results = judged(Access(uid=1000, sshd="/usr/sbin/sshd")).values()
    assert {check["status"] for check in results} == {"unknown"}
    assert {check["remedy"] for check in results} == {
        "ansible-playbook gpuops.fleet.audit --limit gpu-1 -e ansible_become=true"
    }


ABOUT_SSHD = {
    "password_login", "empty_password_login", "root_login", "revoked_keys", "strict_modes", "key_files", "drift",
    "weak_kex", "weak_ciphers", "weak_macs", "weak_signatures", "keys_weak", "hostbased", "user_environment",
    "max_auth_tries", "max_sessions", "max_startups", "login_grace_time", "log_level", "post_quantum_kex",
    "x11_forwarding", "moduli", "keys_shared", "password_without_key", "keys_duplicate", "keys_without_comment",
    "keys_count",
}  # fmt: skip
REFUSED = (Effective("root", FOREIGN, {}, "line 3: Bad configuration option: Foo"),)


def test_nothing_is_called_ok_where_sshd_refuses_its_configuration() -> None:
    found = not_ok(replace(GOOD, effective=REFUSED))
    assert found.pop("sshd_config") == "fail"
    assert found == dict.fromkeys(ABOUT_SSHD, "unknown")


@pytest.mark.parametrize(
    "access",
    [
        replace(GOOD, sshd=""),
        replace(GOOD, effective=()),
        replace(GOOD, effective=(Effective("root", FOREIGN, {}, "Missing privilege separation directory: /run/sshd"),)),
    ],
    ids=["no-sshd", "no-answer", "no-directory"],
)
def test_nothing_is_called_ok_where_sshd_cannot_be_asked(access: Access) -> None:
    assert not_ok(access) == dict.fromkeys({"sshd_config", *ABOUT_SSHD}, "unknown")


def test_one_refused_connection_does_not_hide_what_another_shows() -> None:
    access = replace(GOOD, effective=(*everywhere(passwordauthentication="yes"), *REFUSED))
    assert judged(access)["password_login"]["status"] == "fail"
    assert judged(access)["root_login"]["status"] == "unknown"


@pytest.mark.parametrize(
    ("access", "evidence"),
    [
        (replace(GOOD, left_out=3), "3 accounts were left out"),
        (
            replace(GOOD, untestable=(MatchLine("/etc/ssh/sshd_config:9", "invalid-user"),)),
            "/etc/ssh/sshd_config:9: no connection can be named that `Match invalid-user` applies to",
        ),
    ],
    ids=["accounts", "match"],
)
def test_what_was_not_tried_is_not_called_ok(access: Access, evidence: str) -> None:
    checks = judged(access)
    assert checks["password_login"]["status"] == "unknown"
    assert evidence in checks["password_login"]["evidence"]
    # No Match block can hold it.
    assert checks["max_startups"]["status"] == "ok"


def test_keys_that_cannot_be_read_are_unknown() -> None:
    hidden = replace(GOOD.accounts[1], keys=(), unreadable=("/home/gpu",))
    checks = judged(replace(GOOD, accounts=(GOOD.accounts[0], hidden)))
    assert {checks[name]["status"] for name in ("keys_weak", "key_files", "password_without_key")} == {"unknown"}


@pytest.mark.parametrize(
    ("access", "check", "status"),
    [
        (replace(GOOD, logins=None), "logins", "unknown"),
        (replace(GOOD, logins=None), "failed_logins", "unknown"),
        (replace(GOOD, journal=""), "journal", "skipped"),
        (replace(GOOD, loaded=None), "loaded", "skipped"),
        (replace(GOOD, host_key_files=()), "host_key_files", "unknown"),
        (replace(GOOD, host_keys=()), "host_keys_weak", "unknown"),
        (set_to(kexalgorithms="sntrup761x25519-sha512"), "moduli", "ok"),
    ],
)
def test_what_is_not_there_to_look_at(access: Access, check: str, status: str) -> None:
    assert judged(replace(access, moduli=((1024, 1),)))[check]["status"] == status


def test_logins_are_shown_with_their_sources() -> None:
    assert judged(GOOD)["logins"]["evidence"] == "journal, 7 days: gpu from 10.0.0.1 3x, last 2026-11-23T02:00:34+0000"


@pytest.mark.parametrize(
    "access",
    [
        replace(set_to(maxsessions="50"), accounts=(GOOD.accounts[0], account("gpu", 1000))),
        set_to(maxsessions="50", allowusers="somebody"),
        set_to(maxsessions="50", pubkeyauthentication="no"),
        replace(GOOD, effective=(replace(effective("gpu", FOREIGN, maxsessions="50"), missing_files=("/revoked",)),)),
    ],
    ids=["no-key-for-us", "allow-users", "no-keys-at-all", "revoked-keys"],
)
def test_what_may_lock_out_is_left_to_the_guarded_change(access: Access) -> None:
    checks = judged(replace(access, newer=((1700000060, "/etc/ssh/sshd_config"),)))
    site = "ansible-playbook site.yml --tags trust --limit gpu-1"
    assert (checks["max_sessions"]["remedy"], checks["loaded"]["remedy"]) == (site, site)


def test_a_template_in_a_path_does_not_reach_a_command_for_ansible() -> None:
    found = judged(with_file("/etc/ssh/sshd_config.d/{{ lookup('pipe', 'id') }}.conf", 0o666, 0))["sshd_files"]
    assert found["remedy"] == "ssh node-1"


def test_a_path_does_not_leave_its_quotes() -> None:
    remedy = judged(with_file("/etc/ssh/$(id)'`id`.conf", 0o666, 0))["sshd_files"]["remedy"]
    assert "$(id)" not in remedy.split("'")[::2]
    assert remedy.startswith("ansible gpu-1 -m shell -a 'chown root ")


@pytest.mark.parametrize(
    ("baseline", "access", "found"),
    [
        ({"max_sessions": {"expect": 50}}, set_to(maxsessions="50"), {}),
        ({"max_sessions": {"expect": 5}}, GOOD, {"max_sessions": "fail"}),
        ({"max_startups": {"expect": "100:30:200"}}, set_to(maxstartups="100:30:200"), {}),
        ({"log_level": {"expect": "VERBOSE"}}, set_to(loglevel="INFO"), {"log_level": "fail", "drift": "fail"}),
        ({"root_login": {"expect": False}}, GOOD, {"root_login": "fail"}),
        ({"keys_weak": {"expect": 8192}}, GOOD, {"keys_weak": "fail"}),
        ({"journal": {"enabled": False}}, replace(GOOD, journal="volatile"), {"journal": "skipped"}),
    ],
)
def test_the_baseline_changes_what_is_expected(
    baseline: dict[str, t.Any], access: Access, found: dict[str, str]
) -> None:
    assert not_ok(access, baseline) == found


def test_the_baseline_changes_how_bad_it_is() -> None:
    baseline = {"x11_forwarding": {"severity": "critical"}}
    assert judged(GOOD, baseline)["x11_forwarding"]["severity"] == "critical"
    assert judged(GOOD)["x11_forwarding"]["severity"] == "low"


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ({"max_sesions": {}}, "no check is called 'max_sesions'. Did you mean max_sessions?"),
        ({"colour": {}}, "no check is called 'colour'. There are sshd_config, superusers, "),
        ({7: {}}, "no check is called 7"),
        ({"x11_forwarding": "low"}, "x11_forwarding must be a dictionary such as {severity: low}, got 'low'"),
        (
            {"x11_forwarding": {"severity": "bad"}},
            "severity must be one of info, low, medium, high, critical, got 'bad'",
        ),
        ({"x11_forwarding": {"severity": ["low"]}}, "severity must be one of"),
        ({"x11_forwarding": {"enabled": "false"}}, "x11_forwarding.enabled must be true or false, got 'false'"),
        (
            {"x11_forwarding": {"expect": "no"}},
            "x11_forwarding has no threshold, so no expect; those that have one: root_",
        ),
        ({"x11_forwarding": {"level": 1}}, "x11_forwarding takes severity, enabled and expect, got 'level'"),
        ({"max_sessions": {"expect": "many"}}, "max_sessions.expect must be a whole number above 0, got 'many'"),
        ({"max_sessions": {"expect": 0}}, "above 0, got 0"),
        ({"max_sessions": {"expect": True}}, "above 0, got True"),
        ({"max_startups": {"expect": 38460}}, 'three numbers in quotes such as "10:30:60", got 38460'),
        (
            {"root_login": {"expect": "never"}},
            "must be one of no, forced-commands-only, prohibit-password, yes, got 'never'",
        ),
        ({"log_level": {"expect": "DEBUG"}}, "must be one of INFO, VERBOSE, got 'DEBUG'"),
    ],
)
def test_a_wrong_baseline_is_one_message(baseline: dict[t.Any, t.Any], message: str) -> None:
    with pytest.raises(BaselineError) as told:
        apply_baseline(baseline)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_the_table_is_sound() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert {check.severity for check in CHECKS} == set(SEVERITIES)
    ranks = [SEVERITIES.index(check.severity) for check in CHECKS]
    assert ranks == sorted(ranks, reverse=True)
    assert max(len(check.id) for check in CHECKS) <= 20


def test_the_page_lists_every_check_as_it_is() -> None:
    page = (REPOSITORY / "docs" / "audit.md").read_text().splitlines()
    for check in CHECKS:
        expect = "-" if check.expect is None else f"`{check.expect}`"
        assert f"| `{check.id}` | {check.title} | {check.severity} | {check.cis or '-'} | {expect} |" in page
