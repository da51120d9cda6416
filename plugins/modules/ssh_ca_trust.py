# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_ca_trust
short_description: Install CA keys, principals, KRL and host certificates for sshd
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Writes which CAs of users are trusted, which principals are good for which account, what is revoked, and the
    certificates of the node's own host keys. All of it in one task.
  - It does not touch the configuration of sshd. RV(sshd_settings) says what belongs there, for
    M(gpuops.fleet.sshd_policy).
  - A list of revoked keys that the node's OpenSSH cannot read would lock everybody out. It is tried before it takes its
    place.
options:
  state:
    description:
      - V(absent) removes the files. Refused while sshd is still told to read the list of revoked keys.
    type: str
    choices: [present, absent]
    default: present
  authorities:
    description:
      - The public keys of the CAs whose certificates let users in.
    type: list
    elements: str
    default: []
  principals:
    description:
      - For each account the principals of certificates that let somebody into it. The files of all other accounts are
        removed.
    type: dict
    default: {}
  revoked:
    description:
      - A KRL as C(ssh-keygen -k) makes it, in base64. Required with O(state=present).
    type: str
  certificates:
    description:
      - Host certificates, by the text of the public host key without its comment. Those for keys that the node does
        not have are left out.
    type: dict
    default: {}
extends_documentation_fragment:
  - gpuops.fleet._attributes
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written but C(/run/sshd) where it is missing.
  diff_mode:
    support: full
    details:
      - Shows each file; of the list of revoked keys only its size.
  idempotent:
    support: full
notes:
  - Needs root on the node, and OpenSSH 8.2 or later.
seealso:
  - module: gpuops.fleet.ssh_krl
  - module: gpuops.fleet.sshd_policy
"""

EXAMPLES = r"""
- name: Take the certificates of one CA
  gpuops.fleet.ssh_ca_trust:
    authorities: ["{{ lookup('ansible.builtin.file', 'user_ca.pub') }}"]
    principals:
      alice: [alice@gpu]
    revoked: "{{ krl.content }}"  # of gpuops.fleet.ssh_krl
  register: trust

- name: Tell sshd about it
  gpuops.fleet.sshd_policy:
    settings: "{{ trust.sshd_settings }}"
"""

RETURN = r"""
files:
  description: The files that were changed, or would be.
  type: list
  elements: str
  returned: success
  sample: [/etc/ssh/gpuops-principals/alice]
host_keys:
  description:
    - The public host keys of the node that get a certificate, without their comments. The task fails where the node
      names anything else.
  type: list
  elements: str
  returned: success
  sample: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX2...]
sshd_settings:
  description: Keywords of C(sshd_config) and their values, for the files that are there.
  type: dict
  returned: success
  sample:
    RevokedKeys: /etc/ssh/gpuops-revoked-keys
    TrustedUserCAKeys: /etc/ssh/gpuops-user-ca.pub
"""

import base64
import contextlib
import glob
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import NODE, failed_result, problem_of
from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import PublicKeyError, parse_line
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.ca import (
    HOST_KEY_TYPES,
    PRINCIPALS,
    REVOKED,
    CaError,
    Files,
    Trust,
    bare,
    certificate_path,
    plan,
    sshd_settings,
)
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd import guard, process
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.effective import Effective, parse_effective
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.sshd.policy import read

# Where somebody may log in from, for Match blocks: what is asked for is the same for everybody.
_LOGIN = "user=root,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"


def ask_sshd(module: AnsibleModule) -> Effective:
    """Return what `sshd -T` says. Raises CaError if there is no sshd or it rejects its files."""
    program = process.sshd_program()
    if not program:
        raise CaError("there is no sshd on this machine", remedy="apt-get install openssh-server", where=NODE)

    def run(command: t.Sequence[str]) -> tuple[int, str]:
        code, out, error = module.run_command(command)
        return code, error if code else out

    code, said = process.ask_sshd(run, [program, "-T", "-C", _LOGIN])
    if code:
        raise CaError(f"sshd -T ended with {code}: {said.strip()}", remedy="sshd -t", where=NODE)
    return parse_effective(said)


def find_host_keys(effective: Effective) -> dict[str, str]:
    """The public host keys that are to have certificates, by the path of the private ones."""
    found = {}
    for path in effective.get("hostkey", []):
        content = read(f"{path}.pub")
        if content:
            key = parse_line(content.decode())
            if key.kind in HOST_KEY_TYPES:
                found[path] = bare(key)
    return found


def check_revoked(module: AnsibleModule, content: bytes) -> None:
    """Have the node's OpenSSH read it."""
    path = os.path.join(module.tmpdir, "revoked")
    with open(path, "wb") as file:
        file.write(content)
    code, _out, error = module.run_command(["ssh-keygen", "-Q", "-f", path])
    if code:
        raise CaError(f"this OpenSSH cannot read the list of revoked keys, and would refuse every key: {error.strip()}")


def is_right(path: str, content: bytes | None) -> bool:
    """Return whether a file is as it is to be: sshd takes no file that others than root may write."""
    if content is None or read(path) != content:
        return content is None and not os.path.lexists(path)
    status = os.stat(path)
    return (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o644)


def is_right_folder(path: str) -> bool:
    """sshd looks into it as the user who logs in."""
    if not os.path.isdir(path):
        return False
    status = os.stat(path)
    return (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o755)


def put_folder(path: str) -> None:
    os.makedirs(path, exist_ok=True)
    # Whatever the umask of this process is.
    os.chown(path, 0, 0)
    os.chmod(path, 0o755)


def put(path: str, content: bytes | None) -> None:
    guard.write(path, content)
    if content is not None:
        os.chown(path, 0, 0)
        os.chmod(path, 0o644)


def show(path: str, content: bytes | None) -> str:
    if path == REVOKED:
        return "" if content is None else f"{len(content)} bytes\n"
    return (content or b"").decode("utf-8", "replace")


def run(module: AnsibleModule) -> dict[str, t.Any]:
    options = module.params
    effective = ask_sshd(module)
    host_keys = find_host_keys(effective)
    trust = None
    if options["state"] == "present":
        revoked = base64.b64decode(options["revoked"])
        if not module.check_mode:
            check_revoked(module, revoked)
        trust = Trust(options["authorities"], options["principals"], revoked, options["certificates"])
    elif REVOKED in effective.get("revokedkeys", []):
        raise CaError(
            f"sshd still reads {REVOKED}, and would refuse every key without it",
            remedy="sshd -T | grep revoked",
            where=NODE,
        )
    paths = [*glob.glob(f"{PRINCIPALS}/*"), *map(certificate_path, host_keys)]
    present: Files = {path: read(path) for path in paths}
    wanted = plan(trust, host_keys, present)
    changed = {path: content for path, content in wanted.items() if not is_right(path, content)}
    folder_changed = not is_right_folder(PRINCIPALS) if trust else os.path.isdir(PRINCIPALS)
    result = {
        "changed": bool(changed) or folder_changed,
        "files": sorted(changed),
        "host_keys": sorted(host_keys.values()),
        "diff": [
            {
                "before_header": path,
                "after_header": path,
                "before": show(path, read(path)),
                "after": show(path, content),
            }
            for path, content in sorted(changed.items())
        ],
    }
    if not module.check_mode:
        if trust:
            put_folder(PRINCIPALS)
        for path, content in changed.items():
            put(path, content)
        if not trust:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(PRINCIPALS)
    return {**result, "sshd_settings": sshd_settings(host_keys, os.path.exists)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "authorities": {"type": "list", "elements": "str", "default": []},
            "principals": {"type": "dict", "default": {}},
            "revoked": {"type": "str"},
            "certificates": {"type": "dict", "default": {}},
        },
        required_if=[("state", "present", ["revoked"])],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except (CaError, PublicKeyError, OSError) as error:
        module.fail_json(**failed_result([problem_of(error)]))


if __name__ == "__main__":
    main()
