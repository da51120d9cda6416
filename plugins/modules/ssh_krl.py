# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_krl
short_description: Create an OpenSSH key revocation list (KRL)
version_added: 0.2.0
author: gpuops.fleet contributors (@gpuops)
description:
  - Writes a key revocation list (KRL) for sshd's C(RevokedKeys). With nobody to revoke it is an empty one, since sshd
    refuses everybody where the file is missing.
  - People who are absent are revoked by the name in their certificates, of whichever CA, and by their keys, unless
    somebody who is present has the same key.
  - A key that was revoked because somebody is absent stays so while O(people) has them as absent, also when the file
    or the server that had it has it no more, unless somebody who is present has it. What O(revoked) names stays until
    it is taken out there.
  - A KRL holds the time at which it was made. So what it was made of is kept beside it, and it is made anew only when
    that changes. There, each key has its owner behind it, which is how it is remembered. A key without an owner, of an
    earlier release or of a KRL whose text was lost, stays while anybody is absent.
  - To let a key go by hand, take it out of O(people), take its line out of the text, and remove the KRL.
  - The keys by which this control node may log in to the hosts of the play are never revoked. Where one would be, or
    where they cannot be told, the module fails and nothing has changed.
options:
  path:
    description:
      - The KRL. What it was made of is in a file with this name and C(.txt). Keys of the KRL that are not in that file,
        which may be lost or cut off, stay revoked, with a warning.
    type: path
    required: true
  people:
    description:
      - People as in C(gpu_users). Their C(name), C(state) and C(keys) count; a key may also be a dictionary with its
        C(fingerprint).
    type: list
    elements: dict
    default: []
  revoked:
    description:
      - What else is revoked, each a name in certificates, V(SHA256:...) of a key, a public key, or V(serial:N).
    type: list
    elements: str
    default: []
  own_keys:
    description:
      - The fingerprints of keys that must not be revoked. Set by the half on the control node.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - gpuops.fleet._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows what the KRL is made of.
  idempotent:
    support: full
seealso:
  - module: gpuops.fleet.ssh_ca_trust
"""

EXAMPLES = r"""
- name: Revoke what people who have left could still have
  gpuops.fleet.ssh_krl:
    path: ~/.ssh/gpuops-ca/revoked.krl
    people: "{{ gpu_users }}"
    revoked: ["SHA256:n2ZyB7Yx0Iu6ZvT0O5tA2bC3dE4fG5hI6jK7lM8nO9p"]
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
entries:
  description: What is revoked, as C(ssh-keygen -k) reads it.
  type: list
  elements: str
  returned: success
  sample: ["id: mallory"]
content:
  description: The KRL in base64, as M(gpuops.fleet.ssh_ca_trust) takes it.
  type: str
  returned: success
  sample: U1NIS1JMCgAAAAABAAAAAAAAAAAAAAAA...
"""

import base64
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import failed_result, on_host, problem_of
from ansible_collections.gpuops.fleet.plugins.module_utils._base.public_key import PublicKeyError
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.ca import (
    CaError,
    check_own_keys,
    krl_entries,
    read_text,
    remembered,
    revocations,
    text_of_krl,
)


def make(module: AnsibleModule, entries: t.Sequence[str], path: str) -> None:
    """Make the KRL, for certificates of any CA."""
    command = ["ssh-keygen", "-k", "-f", path, "-s", "none", "-"]
    code, out, error = module.run_command(command, data="".join(f"{entry}\n" for entry in entries))
    if code:
        raise CaError(f"ssh-keygen -k ended with {code}: {(error or out).strip()}")


def run(module: AnsibleModule) -> dict[str, t.Any]:
    path = module.params["path"]
    source = f"{path}.txt"
    before = read_text(source) if os.path.exists(source) else ""
    memory = remembered(before, source)
    is_whole = os.path.exists(path)
    if is_whole:
        revoked = recall(module, path, source)
        is_whole = revoked is not None
        if revoked is None and not before:
            raise CaError(
                f"{path} is not a KRL that ssh-keygen can read, and {source} does not say what it revoked",
                remedy=f"put both back from a copy, or rm {path} to revoke only what the list has now",
            )
        # The text may be lost, or cut off.
        known = {key for key, _owner in memory}
        forgotten = [(key, owner) for key, owner in revoked or [] if key not in known]
        if forgotten:
            module.warn(
                f"localhost: {source} lacks {len(forgotten)} of the keys that {path} revokes; they stay revoked while "
                "anybody is absent, since the KRL does not say whose they are; next: put it back from a copy and run "
                "again, if there is one"
            )
        memory += forgotten
    lines = revocations(module.params["people"], module.params["revoked"], read_text, memory)
    entries = krl_entries(lines)
    # Also when nothing is to change: the key that logs in may be another one now.
    check_own_keys(entries, module.params["own_keys"], source)
    after = "".join(f"{line}\n" for line in lines)
    changed = before != after or not is_whole or not os.path.exists(source)
    new = os.path.join(module.tmpdir, "new")
    if changed:
        make(module, entries, new)
    with open(new if changed else path, "rb") as file:
        content = base64.b64encode(file.read()).decode()
    if changed and not module.check_mode:
        with open(f"{new}.txt", "w", encoding="utf-8") as text:
            text.write(after)
        # The source last: after a failure in between, the next run makes both anew.
        for made, dest in ((new, path), (f"{new}.txt", source)):
            module.atomic_move(made, dest)
            module.set_mode_if_different(dest, 0o644, False)
    diff = {"before_header": source, "after_header": source, "before": before, "after": after}
    return {"changed": changed, "entries": entries, "content": content, "diff": diff}


def recall(module: AnsibleModule, path: str, source: str) -> list[tuple[str, str]] | None:
    """Ask the KRL itself what was revoked; None where that cannot be known."""
    code, out, _error = module.run_command(["ssh-keygen", "-Q", "-l", "-f", path])
    if not code:
        return remembered(text_of_krl(out), path)
    # An OpenSSH before 8.3 reads a KRL and cannot list what is in it. Then the text has to do, and has to be there.
    is_readable = module.run_command(["ssh-keygen", "-Q", "-f", path])[0] == 0
    return [] if is_readable and os.path.exists(source) else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "people": {"type": "list", "elements": "dict", "default": []},
            "revoked": {"type": "list", "elements": "str", "default": []},
            "own_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except (CaError, PublicKeyError, OSError) as error:
        module.fail_json(**failed_result(on_host([problem_of(error)], "localhost")))


if __name__ == "__main__":
    main()
