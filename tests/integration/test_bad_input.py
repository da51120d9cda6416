# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong in front of site.yml: one message that says what to type, and nothing broken by it.

That no run shows a traceback or touches a file of the user's is asserted by Fleet.site itself.
"""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from podman import podman

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.conftest import Fleet, Node

REPOSITORY = Path(__file__).resolve().parents[2]
DROP_IN = "/etc/ssh/sshd_config.d/00-gpuops.conf"
NODE_FILES = "cd / && find etc/ssh root -type f | sort | xargs sha256sum"

pytestmark = pytest.mark.xdist_group("bad-input")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose connections are never taken, as those of a machine that is off."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


# Each is a process of Ansible. Whoever adds a task to each run has to take out another one.
RESULTS_OF_A_NODE = 20
LOCALHOST = {"ansible_host": "localhost"}


def test_broken_entries_beside_a_good_node(new_fleet: Fleet, silent_port: int, tmp_path: Path) -> None:
    good, other = new_fleet.hosts.pop("gpu-1"), new_fleet.hosts.pop("gpu-2")
    touch = f"touch${{IFS}}{tmp_path}/injected-by"
    # One of them is the first: what is done once for all nodes is done by the first one.
    unusable = {"undefined": {"ansible_host": "{{ nowhere }}"}, "no-text": {"ansible_host": ["192.0.2.1", "192.0.2.2"]}}
    new_fleet.hosts.update(unusable)
    refused = {
        "rack1/gpu-3": ({**other}, "'rack1/gpu-3', which is not made of letters"),
        "gpü-4": ({**other}, "'gpü-4', which is not made of letters"),
        "g*": ({**other}, "'g*', which is not made of letters"),
        "bad-jump-hosts": (
            {**other, "ssh_bootstrap_jump_hosts": ["a b"]},
            "'a b', which is not an alias or [user@]host",
        ),
        "bad-timeout": ({**other, "ssh_bootstrap_timeout": 0}, "ssh_bootstrap_timeout is 0, which"),
        "empty-port": ({**other, "ansible_port": ""}, "ansible_port is '', which"),
        "no-address": ({**good, "ansible_host": ""}, "ansible_host is '', which is no address"),
        f"x -oProxyCommand={touch}-alias": (other, "which is not made of letters"),
        "by-jump": ({**other, "ssh_bootstrap_proxy_jump": f"none -oProxyCommand={touch}-jump"}, "which holds a blank"),
        "by-port": ({**other, "ansible_port": f"22 -oProxyCommand={touch}-port"}, "not a whole number"),
        "by-host": ({**other, "ansible_host": f"127.0.0.1$({touch}-host)"}, "which holds '$'"),
        # At the address of the good node, which still gets all that it is to have.
        "by-user": ({**good, "ansible_user": f"root;{touch}-user"}, "which holds ';'"),
    }
    new_fleet.hosts.update({host: variables for host, (variables, _words) in refused.items()})
    # What a user's own configuration runs with the words that ssh is given.
    config = new_fleet.ssh / "config"
    config.write_text(config.read_text() + 'Match exec "true %h %r %n"\n')
    new_fleet.hosts["gpu-1"] = {**good, "ssh_bootstrap_host_key_fingerprint": new_fleet.nodes["gpu-1"].fingerprint()}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        broken = {
            "wrong-password": {**other, "ansible_password": "not-the-password"},
            # Other spellings of gpu-1's address: with the same one they would be refused as twins.
            "no-password": {**{key: value for key, value in good.items() if key != "ansible_password"}, **LOCALHOST},
            "wrong-fingerprint": {
                **good,
                "ansible_host": "127.1",
                "ssh_bootstrap_host_key_fingerprint": "SHA256:wrong",
            },
            "port-closed": {**good, "ansible_port": closed.getsockname()[1]},
            "silent": {**good, "ansible_port": silent_port, "ssh_bootstrap_timeout": 3},
            "name-unknown": {**good, "ansible_host": "no-such-host.invalid"},
            "one-alias": {**other, "ansible_host": "127.0.0.2", "ssh_bootstrap_alias": "gpu-7"},
            "same-alias": {**other, "ansible_host": "127.0.0.3", "ssh_bootstrap_alias": "gpu-7"},
            # What only ssh_alias finds, when it writes the aliases of all nodes.
            "round": {**other, "ansible_host": "127.0.0.4", "ssh_bootstrap_jump_hosts": ["round"]},
        }
        new_fleet.hosts.update(broken)
        before = new_fleet.nodes["gpu-2"].sh(NODE_FILES)
        run = new_fleet.site()
    assert run.rc == 2
    expected = {
        "wrong-password": ("the one given was refused", "--ask-pass"),
        "no-password": ("none is in the inventory", "--ask-pass"),
        "wrong-fingerprint": (new_fleet.nodes["gpu-1"].fingerprint(), "ssh_bootstrap_host_key_fingerprint"),
        "port-closed": ("nothing listens on this port", "ssh -v"),
        "silent": ("off, or a firewall", "ping"),
        "name-unknown": ("no such host name", "getent hosts no-such-host.invalid"),
        "one-alias": ("one-alias and same-alias have one and the same alias, gpu-7", "correct ssh_bootstrap_alias"),
        "same-alias": ("one-alias and same-alias have one and the same alias, gpu-7", "correct ssh_bootstrap_alias"),
        "round": ("round goes by round, which has no end", "ansible-inventory --host round"),
        "undefined": ("'nowhere' is undefined", "ansible-inventory --host undefined"),
        "no-text": ("['192.0.2.1', '192.0.2.2']", "ansible-inventory --host no-text"),
    }
    complaints = run.complaints()
    assert sorted(complaints) == sorted([*broken, *unusable, *(host for host in refused if " " not in host)])
    for host, (_variables, words) in refused.items():
        assert f"\n{host}: the inventory cannot be used for this node" in run.text
        assert words in run.text
        assert f"\n  next: ansible-inventory --host {shlex.quote(host)}, and correct it there\n" in run.text
        assert run.recap(host)["failed"] == 1
    assert list(tmp_path.glob("injected*")) == []
    for host, (cause, command) in expected.items():
        assert cause in complaints[host][0]
        assert command in complaints[host][1]
        assert run.recap(host)["failed"] == 1
    assert "SHA256:wrong" in complaints["wrong-fingerprint"][0]
    pinned = (new_fleet.ssh / "known_hosts.d" / "gpuops").read_text()
    assert "wrong-fingerprint" not in pinned
    assert all(host not in pinned for host in refused)
    assert "gpu-1 ssh-ed25519" in pinned, "the right fingerprint is accepted"
    assert "not-the-password" not in run.text
    assert run.is_complete("gpu-1")
    assert run.recap("gpu-1")["failed"] == 0
    assert new_fleet.ssh_into("gpu-1").returncode == 0
    assert new_fleet.nodes["gpu-2"].sh(NODE_FILES) == before
    # Ad hoc, no role looks at the entries.
    ad_hoc = subprocess.run(
        ["ansible", "-i", str(new_fleet.inventory), "gpu:!rack*", "-m", "ansible.builtin.raw", "-a", "true", "-T", "2"],
        cwd=REPOSITORY, env=new_fleet.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert "gpu-1 | CHANGED" in ad_hoc.stdout, ad_hoc.stdout + ad_hoc.stderr
    assert list(tmp_path.glob("injected*")) == []


def test_right_password_after_a_wrong_one(new_fleet: Fleet) -> None:
    # OpenSSH 9.8 and later turn away a source for a while after some failed logins.
    del new_fleet.hosts["gpu-1"]
    right = new_fleet.hosts["gpu-2"]
    new_fleet.hosts["gpu-2"] = {**right, "ansible_password": "not-the-password"}
    assert new_fleet.site().rc == 2
    new_fleet.hosts["gpu-2"] = right
    run = new_fleet.site()
    assert run.rc == 0, run.text
    assert run.is_complete("gpu-2")


def test_node_that_is_off_and_comes_back(settled_fleet: Fleet) -> None:
    node = settled_fleet.nodes["gpu-2"]
    podman("stop", "--time", "2", node.container)
    try:
        off = settled_fleet.site()
    finally:
        podman("start", node.container)
    assert off.rc == 2
    assert list(off.complaints()) == ["gpu-2"]
    cause, command = off.complaints()["gpu-2"]
    assert "nothing listens on this port" in cause
    assert "ssh -v" in command
    assert off.is_complete("gpu-1")
    settled_fleet.hosts["gpu-2"]["ansible_port"] = node.port()
    wait_until(lambda: settled_fleet.ssh_into("gpu-2").returncode == 0, 20, "the node is back")
    back = settled_fleet.site("--limit", "gpu-2")
    assert back.rc == 0
    assert back.is_complete("gpu-2")


def test_changed_host_key_is_refused(settled_fleet: Fleet) -> None:
    node = settled_fleet.nodes["gpu-2"]
    known_hosts = settled_fleet.ssh / "known_hosts.d" / "gpuops"
    pinned, old = known_hosts.read_bytes(), node.fingerprint()
    rebuild(node)
    run = settled_fleet.site()
    assert run.rc == 2
    assert list(run.complaints()) == ["gpu-2"]
    cause, command = run.complaints()["gpu-2"]
    assert old in cause
    assert node.fingerprint() in cause
    assert f"ssh-keygen -R gpu-2 -f {known_hosts}" in command
    assert known_hosts.read_bytes() == pinned
    assert run.is_complete("gpu-1")


def rebuild(node: Node) -> str:
    """Give a node new host keys, as a rebuilt machine has them; return the new fingerprint."""
    node.sh("rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh")
    return node.fingerprint()


def test_policy_replace_is_good_for_one_rebuild(settled_fleet: Fleet) -> None:
    node = settled_fleet.nodes["gpu-2"]
    known_hosts = settled_fleet.ssh / "known_hosts.d" / "gpuops"
    replacing = ("--tags", "reach", "--limit", "gpu-2", "-e", "ssh_bootstrap_host_key_policy=replace")
    old, new = node.fingerprint(), rebuild(node)
    first = settled_fleet.site(*replacing)
    assert first.rc == 0, first.text
    assert f"the pinned host key {old} is replaced by {new}" in " ".join(first.text.split())
    assert settled_fleet.ssh_into("gpu-2").returncode == 0
    assert known_hosts.read_text().count("gpu-2 ") == 2  # the key, and the note that it was replaced
    rebuild(node)
    assert settled_fleet.site(*replacing).rc == 2, "the second rebuild is not taken by the policy of the first"
    assert settled_fleet.site("--tags", "reach", "--limit", "gpu-2").rc == 2
    assert settled_fleet.site(*replacing).rc == 0


def test_fingerprint_of_the_inventory_takes_the_place_of_the_pin(settled_fleet: Fleet) -> None:
    node = settled_fleet.nodes["gpu-2"]
    settled_fleet.hosts["gpu-2"]["ssh_bootstrap_host_key_fingerprint"] = rebuild(node)
    assert settled_fleet.site("--tags", "reach", "--limit", "gpu-2").rc == 0
    assert "changed=0" in settled_fleet.site("--tags", "reach", "--limit", "gpu-2").text
    rebuild(node)
    assert settled_fleet.site("--tags", "reach", "--limit", "gpu-2").rc == 2


# As an image may have it: under a name of its own, and without the public half.
OTHER_HOST_KEY = """
mkdir /etc/ssh/keys
(umask 077; echo "$1" > /etc/ssh/keys/host.ed25519)
rm /etc/ssh/ssh_host_*
echo 'HostKey /etc/ssh/keys/host.ed25519' >> /etc/ssh/sshd_config
systemctl restart ssh
"""
WHERE = 'grep -rlF -e "$1" /etc /root /home /tmp /var/tmp /run || true'


def test_cloned_host_keys_are_named(settled_fleet: Fleet) -> None:
    one, other = settled_fleet.nodes["gpu-1"], settled_fleet.nodes["gpu-2"]
    keys = [(one, "/etc/ssh/ssh_host_ed25519_key"), (other, "/etc/ssh/keys/host.ed25519")]
    old = one.sh("cat /etc/ssh/ssh_host_ed25519_key")
    other.sh(OTHER_HOST_KEY, old)
    run = settled_fleet.site("-e", "ssh_bootstrap_host_key_policy=replace")
    assert run.rc == 0, run.text
    shared = one.fingerprint()
    assert f"gpu-1 and gpu-2: one and the same host key, {shared}" in run.text
    assert f"site.yml -e sshd_hardening_replace_host_key={shared}\n" in run.text
    run = settled_fleet.site("-e", f"sshd_hardening_replace_host_key={shared}", "--diff")
    assert run.rc == 0, run.text
    assert "one and the same host key" not in run.text
    assert len({shared, *(node.sh(f"ssh-keygen -lf {key}").split()[1] for node, key in keys)}) == 3
    assert settled_fleet.ssh_into("gpu-1").returncode == settled_fleet.ssh_into("gpu-2").returncode == 0
    assert all(f"+++ after: {key}.pub\n" in run.text for _node, key in keys), "there is a diff"
    assert "PRIVATE KEY" not in run.text
    for node, key in keys:
        secrets = [line for text in (old, node.sh(f"cat {key}")) for line in text.splitlines()[1:-1]]
        # The first lines of all such keys are much alike.
        assert not [line for line in secrets[1:] if line in run.text]
        assert node.sh(WHERE, old.splitlines()[3]) == "", "the old private key is nowhere"
        assert node.sh("find /etc /run -name '*gpuops-before' -o -name '*.gpuops-new' -o -name 'gpuops-sshd'") == ""


# Answers as the node's own Python does, but that its host key is a CA for all names too.
HOSTILE = """
cat > /usr/local/bin/hostile << 'END'
#!/usr/bin/python3
import json, subprocess, sys
answer = json.loads(subprocess.run(["/usr/bin/python3", *sys.argv[1:]], stdout=subprocess.PIPE).stdout)
if answer.get("host_keys"):
    answer["host_keys"][0] += "\\n@cert-authority * " + answer["host_keys"][0]
open("/run/hostile", "a").write(json.dumps(answer))
print(json.dumps(answer))
END
chmod 755 /usr/local/bin/hostile
"""


def test_hostile_node_makes_nobody_known_but_itself(settled_fleet: Fleet) -> None:
    node = settled_fleet.nodes["gpu-1"]
    node.sh(HOSTILE)
    settled_fleet.hosts["gpu-1"]["ansible_python_interpreter"] = "/usr/local/bin/hostile"
    known_hosts = settled_fleet.ssh / "known_hosts.d" / "gpuops"
    pinned, drop_in = known_hosts.read_bytes(), node.sh(f"cat {DROP_IN}")
    run = settled_fleet.site("--tags", "trust", "--limit", "gpu-1", "-e", "sshd_hardening_max_auth_tries=5")
    assert "MaxAuthTries 5" in node.sh("cat /run/hostile")
    assert known_hosts.read_bytes() == pinned
    cause, command = run.complaints()["gpu-1"]
    assert "was put back: what it says of its host keys was not taken: more than one line" in cause
    assert command == "ssh gpu-1 'head -v /etc/ssh/*.pub'"
    assert node.sh(f"cat {DROP_IN}") == drop_in


def make_key(path: Path, *options: str) -> None:
    """Let ssh-keygen make a key, and leave only its private half."""
    subprocess.run(["ssh-keygen", "-q", "-f", path, *options], check=True)
    path.with_suffix(".pub").unlink()


@pytest.mark.parametrize(
    ("make", "cause", "command"),
    [
        (Path.mkdir, "is a directory", "mv {key} {key}.old"),
        (Path.touch, "is empty", "mv {key} {key}.old"),
        (lambda path: make_key(path, "-t", "ed25519", "-N", "passphrase"), "has a passphrase", "ssh-add {key}"),
        (
            lambda path: make_key(path, "-t", "rsa", "-b", "2048", "-N", ""),
            "is too weak: 2048",
            "ssh-keygen -t ed25519",
        ),
        (lambda path: path.write_text("garbage\n"), "no usable private key", "mv {key} {key}.old"),
    ],
    ids=["directory", "empty", "passphrase", "rsa-2048", "garbage"],
)
def test_key_file_that_will_not_do(new_fleet: Fleet, make: Callable[[Path], object], cause: str, command: str) -> None:
    key = new_fleet.ssh / "my_key"
    make(key)
    key.chmod(0o700 if key.is_dir() else 0o600)
    run = new_fleet.site("-e", f"ssh_bootstrap_key={key}")
    assert run.rc == 2
    message = run.refusal()
    assert "localhost: " in message
    assert cause in message
    assert "Next: " in message
    assert command.format(key=key) in message
    assert not (new_fleet.ssh / "config.d").exists()
    assert not (new_fleet.ssh / "my_key.pub").exists()


def in_namespace(script: str, *arguments: str) -> tuple[str, ...]:
    """Run a command where only it sees some mounts; skip where nobody may mount."""
    probe = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"unshare -m mount: {probe.stderr.strip()}")
    return ("unshare", "-m", "sh", "-ec", script, "sh", *arguments)


READ_ONLY = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; exec "$@"'


@pytest.mark.parametrize("what", ["home", "ssh-directory"])
def test_place_that_is_not_writable(new_fleet: Fleet, what: str) -> None:
    place = new_fleet.ssh
    if what == "home":
        shutil.rmtree(new_fleet.ssh)
        place = new_fleet.home
    run = new_fleet.site(within=in_namespace(READ_ONLY, str(place)))
    assert run.rc == 2
    message = run.refusal()
    assert "localhost: " in message
    assert "Read-only file system" in message
    assert f"Next: ls -ld {new_fleet.home}" in message
    assert not (new_fleet.ssh / "config.d").exists()


# Everything is copied into a small file system, which is then full, and copied back for the test to look at.
FULL = """
ssh=$1 copy=$2; shift 2
cp -a "$ssh" "$copy"
mount -t tmpfs -o size=128k,mode=700 tmpfs "$ssh"
cp -a "$copy/." "$ssh"
cat /dev/zero > "$ssh/.gpuops-filler" 2>/dev/null || true
"$@" && rc=0 || rc=$?
rm "$ssh/.gpuops-filler"
rm -rf "$copy"
cp -a "$ssh" "$copy"
exit $rc
"""


@pytest.mark.parametrize("first_write", ["lock", "config"])
def test_full_disk(settled_fleet: Fleet, first_write: str) -> None:
    shutil.rmtree(settled_fleet.ssh / "config.d")
    config = settled_fleet.ssh / "config"
    config.write_text(config.read_text().split("\n", 1)[1])
    if first_write == "lock":
        (settled_fleet.ssh / ".gpuops-run.lock").unlink()
    before = settled_fleet.users_files()
    config_before = config.read_bytes()
    copy = settled_fleet.home / "copy"
    run = settled_fleet.site(within=in_namespace(FULL, str(settled_fleet.ssh), str(copy)))
    assert run.rc == 2
    message = run.refusal()
    assert "No space left on device" in message
    assert "df -h" in message
    shutil.rmtree(settled_fleet.ssh)
    copy.rename(settled_fleet.ssh)
    assert config.read_bytes() == config_before
    assert not (settled_fleet.ssh / "config.d").exists()
    assert settled_fleet.users_files() == before
    resolved = subprocess.run(["ssh", "-G", "-F", config, "elsewhere"], capture_output=True, text=True, check=True)
    assert "hostname 192.0.2.1\n" in resolved.stdout


def test_lab_without_podman(tmp_path: Path) -> None:
    lab = [sys.executable, str(REPOSITORY / "tests" / "lab" / "lab.py"), "up", "--dir", str(tmp_path)]
    ended = subprocess.run(
        [*lab, "gpu-1=deb12:h100x8-570"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "podman is not installed" in ended.stderr
    assert "next: apt-get install podman" in ended.stderr


def test_second_run_while_one_runs(settled_fleet: Fleet) -> None:
    lock = settled_fleet.ssh / ".gpuops-run.lock"
    lock.unlink()
    first = settled_fleet.start("-e", "fleet_proof_verify_command='sleep 3'")
    wait_until(lambda: lock.exists() and bool(lock.read_text()), 30, "the first run holds the lock")
    started = time.monotonic()
    second = settled_fleet.site()
    took = time.monotonic() - started
    assert first.poll() is None, "the first run still runs"
    assert second.rc == 2
    assert f"process {first.pid} " in second.refusal()
    assert f"ps -fp {first.pid}" in second.refusal()
    assert took < 10
    ended = settled_fleet.end(first)
    assert ended.rc == 0, ended.text
    assert settled_fleet.site("--tags", "see", "--limit", "gpu-1").rc == 0


@pytest.mark.parametrize("state", ["new_fleet", "settled_fleet"])
@pytest.mark.parametrize(
    ("twin", "words"),
    [({}, "have one and the same address"), (LOCALHOST, "are one and the same machine")],
    ids=["same-address", "other-address"],
)
def test_two_aliases_of_one_machine(
    state: str, twin: dict[str, str], words: str, request: pytest.FixtureRequest
) -> None:
    fleet: Fleet = request.getfixturevalue(state)
    fleet.hosts["twin"] = {**fleet.hosts["gpu-1"], **twin}
    run = fleet.site()
    assert run.rc == 2
    assert sorted(run.complaints()) == ["gpu-1", "twin"]
    for cause, command in run.complaints().values():
        assert f"gpu-1 and twin {words}" in cause
        assert "ansible-inventory" in command
    assert run.is_complete("gpu-2")
    assert run.recap("gpu-2")["failed"] == 0


def test_check_mode_of_a_fresh_fleet_writes_nothing(new_fleet: Fleet) -> None:
    shutil.rmtree(new_fleet.ssh)
    before = [node.sh(NODE_FILES) for node in new_fleet.nodes.values()]
    run = new_fleet.site("--check", "--diff")
    assert run.rc == 0, run.text
    assert not new_fleet.ssh.exists()
    assert [node.sh(NODE_FILES) for node in new_fleet.nodes.values()] == before
    assert run.text.count("would be set up") >= 2


@pytest.mark.parametrize(
    "arguments",
    [("--limit", "gpu-2"), ("--tags", "see"), ("--check",)],
    ids=" ".join,
)
def test_part_of_a_settled_fleet(settled_fleet: Fleet, arguments: tuple[str, ...]) -> None:
    run = settled_fleet.site(*arguments)
    assert run.rc == 0, run.text
    hosts = [arguments[-1]] if "--limit" in arguments else ["gpu-1", "gpu-2"]
    for host in hosts:
        assert run.recap(host)["changed"] == 0
    if arguments == ("--check",):
        # Of the first node, what runs once for all is counted too.
        counters = run.recap("gpu-2")
        assert sum(counters[name] for name in ("ok", "skipped", "rescued", "ignored")) <= RESULTS_OF_A_NODE
    assert not run.complaints()


def test_command_that_must_work_counts_by_its_exit_code(settled_fleet: Fleet) -> None:
    settled_fleet.hosts["gpu-1"]["fleet_proof_verify_command"] = "echo no torch here >&2; exit 3"
    settled_fleet.hosts["gpu-2"]["fleet_proof_verify_command"] = "nvidia-smi -L"
    run = settled_fleet.site()
    assert run.rc == 2
    cause, command = run.complaints()["gpu-1"]
    assert "the verify command ended with 3: no torch here" in cause
    assert command.startswith("ssh -F")
    assert list(run.complaints()) == ["gpu-1"]


def test_hardening_that_would_lock_out(new_fleet: Fleet) -> None:
    node = new_fleet.nodes["gpu-1"]
    # Not in force yet: the reload of the hardening would make it so.
    path = "/etc/ssh/sshd_config.d/10-foreign.conf"
    node.sh(f"echo AllowUsers nobodyhere > {path}")
    run = new_fleet.site("--limit", "gpu-1")
    assert run.rc == 2
    cause, command = run.complaints()["gpu-1"]
    assert "sshd was not changed" in cause
    assert f"AllowUsers nobodyhere, because of {path}:1: AllowUsers nobodyhere" in cause
    assert "ssh gpu-1" in command
    assert node.sh(f"ls {DROP_IN} 2>/dev/null || true") == ""
    assert node.sh(f"cat {path}") == "AllowUsers nobodyhere\n"
    assert new_fleet.ssh_into("gpu-1").returncode == 0, "the door is as open as it was"
    node.sh(f"rm {path}; systemctl reload ssh")
    again = new_fleet.site("--limit", "gpu-1")
    assert again.rc == 0
    assert again.is_complete("gpu-1")


def test_drop_in_that_wins_over_ours_is_not_called_hardened(settled_fleet: Fleet) -> None:
    node = settled_fleet.nodes["gpu-1"]
    node.sh("echo PasswordAuthentication yes > /etc/ssh/sshd_config.d/00-a.conf; systemctl reload ssh")
    run = settled_fleet.site()
    assert run.rc == 2
    cause, _command = run.complaints()["gpu-1"]
    assert "PasswordAuthentication yes, because of /etc/ssh/sshd_config.d/00-a.conf:1" in cause
    assert run.is_complete("gpu-2")


def wait_until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something, and fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)
