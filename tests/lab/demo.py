# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make demo: three machines as a provider hands them out, site.yml, and the result on the screen.

Everything lies below .demo: an own home, an own ssh configuration. The user's ~/.ssh is neither read nor written.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / ".demo"
SSH_CONFIG = DEMO / "home" / ".ssh" / "config"
LAB = [sys.executable, str(REPOSITORY / "tests" / "lab" / "lab.py"), "--dir", str(DEMO)]
NODES = ["gpu-1=deb12:h100x8-570", "gpu-2=deb13:rtx4090x2-550", "gpu-3=deb12:real"]


def environment() -> dict[str, str]:
    """What the user types runs in this checkout's virtualenv, with a home of its own."""
    return {
        **os.environ,
        "HOME": str(DEMO / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_INVENTORY": str(DEMO / "inventory"),
        # Short, since the path of a socket may have 104 bytes.
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(DEMO / "cp"),
    }


def activate() -> str:
    """The file that gives a shell the demo's environment."""
    script = DEMO / "activate"
    wanted = {key: value for key, value in environment().items() if key.startswith("ANSIBLE_")}
    wanted["PATH"] = f"{Path(sys.executable).parent}:$PATH"
    script.write_text("".join(f'export {key}="{value}"\n' for key, value in wanted.items()))
    return os.path.relpath(script, Path.cwd())


def site() -> set[str]:
    """Run site.yml on the screen, and return the nodes that failed."""
    env = {**environment(), "ANSIBLE_FORCE_COLOR": str(sys.stdout.isatty())}
    failed = set()
    with subprocess.Popen(
        ["ansible-playbook", "site.yml"], cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        for line in run.stdout:
            print(line, end="", flush=True)
            recap = re.match(r"(\S+)\s+: ok=.*unreachable=(\d+) +failed=(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", line))
            if recap and recap[2] + recap[3] != "00":
                failed.add(recap[1])
    return failed if run.returncode in (0, 2) else {"ansible-playbook", *failed}


def up() -> int:
    """Start the nodes, run site.yml, and tell what to try. Two nodes are in order and one is sick on purpose."""
    # The pins and keys of an earlier demo belong to nodes that are gone.
    shutil.rmtree(DEMO / "home", ignore_errors=True)
    print("demo: three machines, each with a root password, no key and an unknown host key", flush=True)
    started = subprocess.run([*LAB, "up", *NODES], check=False)
    if started.returncode:
        return started.returncode
    (DEMO / "home").mkdir(mode=0o700)
    print("demo: ansible-playbook site.yml", flush=True)
    failed = site()
    if failed != {"gpu-3"}:
        print(f"demo: failed: {', '.join(sorted(failed)) or 'nobody'}; only gpu-3 should have", file=sys.stderr)
        return 1
    config = os.path.relpath(SSH_CONFIG, Path.cwd())
    print(
        "demo: gpu-1 and gpu-2 are ready; their GPUs are simulated. gpu-3 has no driver, on purpose.\n"
        "demo: your own ~/.ssh was not touched. Try:\n\n"
        f"  ssh -F {config} gpu-1 nvidia-smi\n"
        f"  . {activate()}; ansible gpu -m gpu_probe\n"
        f"  . {activate()}; ansible-playbook gpuops.fleet.status --limit gpu-1\n\n"
        "demo: make demo-down removes all of it"
    )
    return 0


def down() -> int:
    """Remove the nodes and everything that the demo wrote."""
    removed = subprocess.run([*LAB, "down"], check=False)
    if removed.returncode == 0:
        shutil.rmtree(DEMO, ignore_errors=True)
    return removed.returncode


if __name__ == "__main__":
    sys.exit(up() if sys.argv[1:] == ["up"] else down())
