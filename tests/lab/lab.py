# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start and remove a lab: containers that look like freshly rented GPU machines.

    lab.py up --dir DIR gpu-1=deb12:h100x8-570 gpu-2=deb13:rtx4090x2-550 gpu-3=deb12:real
    lab.py up --dir DIR bastion-1=deb12:none@door bastion-2=deb13:none@door gpu-1=deb12:t4x1-470@inside
    lab.py up --dir DIR gpu-1=deb12:t4x1-470~ubuntu gpu-2=deb13:t4x1-470~pod gpu-3=deb12:t4x1-470~cloud-init=FILE
    lab.py down --dir DIR

A node runs systemd and sshd, on a published port of 127.0.0.1 if nothing else is said. Root logs in by password, there
is no key, and the host key is its own. Its GPUs are simulated (machine types: tests/lab/simulator/machines), or it is
"real": NVIDIA's own tools and no driver; "none" has neither GPUs nor tools. DIR/inventory is the inventory, with the
password in it, beside the group_vars that users get.

@inside puts a node on a podman network that this machine has no address in, and @door on that one and on one that this
machine reaches. The nodes without GPUs are the group bastion, and the jump hosts of those inside.

~ says how a node is handed out otherwise. ~ubuntu: no password, the key of DIR/home/.ssh, which is made when missing,
and the user ubuntu with sudo. ~pod: that key and root, without systemd and sftp; it keeps running when its sshd is
killed. ~cloud-init=FILE: what cloud-init makes of that user-data at the first boot, and nothing else.

FLEET_NODE_IMAGE=registry/name:{} takes ready node images instead of building them; {} becomes deb11, deb12, deb13,
deb12-real, or deb12-cloud-init.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import ipaddress
import json
import os
import secrets
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from podman import LabError, as_root, exists, podman, require

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SUITES = {"deb11": "bullseye", "deb12": "bookworm", "deb13": "trixie"}
# The same epoch and the same packages give a base image with the same bits.
MMDEBSTRAP = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates"]
EPOCH = "1760000000"
LABEL = "gpuops.lab"
MAX_NODES = 20  # each systemd takes several of the host's 128 inotify instances
# A "real" node must not see the driver or the GPUs of the machine that the lab runs on. And where it may make device
# files but not open them, as in most containers, nvidia-smi says "Unknown Error", which no real machine says.
REAL = ["--security-opt=mask=/proc/driver/nvidia:/sys/module/nvidia:/sys/bus/pci/devices", "--cap-drop=MKNOD"]

HAND_OUT = """
chpasswd
machine=$1
if [ "$machine" = none ]; then
    rm -f /usr/local/bin/nvidia-smi
elif [ "$machine" != real ]; then
    echo "$machine" > /etc/gpuops-lab/machine
    python3 /opt/gpuops-lab/simulator/sysroot.py --machine "$machine" --dest /opt/gpuops-lab/sysroot
    echo GPUOPS_SYSROOT=/opt/gpuops-lab/sysroot >> /etc/environment
fi
n=0
until ss -Hltn sport = :22 | grep -q . && [ -s /etc/ssh/ssh_host_ed25519_key.pub ]; do
    n=$((n + 1)); [ $n -lt 120 ] || { echo "sshd does not listen on port 22" >&2; exit 1; }; sleep 0.5
done
"""
UBUNTU = """
useradd --create-home --shell /bin/bash ubuntu
echo 'ubuntu ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/90-cloud-init-users
chmod 440 /etc/sudoers.d/90-cloud-init-users
install -d -m 700 -o ubuntu -g ubuntu /home/ubuntu/.ssh
install -m 600 -o ubuntu -g ubuntu /dev/stdin /home/ubuntu/.ssh/authorized_keys
echo 'PasswordAuthentication no' > /etc/ssh/sshd_config.d/50-cloud-init.conf
systemctl reload ssh
"""
POD = """
install -d -m 700 /root/.ssh
install -m 600 /dev/stdin /root/.ssh/authorized_keys
"""
# As the templates of those who rent out containers do it.
POD_COMMAND = """
ssh-keygen -A
rm -f /etc/ssh/sshd_config.d/50-cloud-init.conf
sed -i /^Subsystem/d /etc/ssh/sshd_config
mkdir -p /run/sshd
/usr/sbin/sshd
exec sleep infinity
"""
CLOUD_INIT = "timeout 300 cloud-init status --wait --long >&2"
SEED = "/var/lib/cloud/seed/nocloud/user-data"


@dataclass(frozen=True)
class Node:
    """One machine of the lab: its name, its Debian release, its GPUs, where it is, and how it is handed out."""

    name: str
    release: str
    machine: str
    place: str = ""
    way: str = ""
    user_data: str = ""

    @classmethod
    def parse(cls, text: str) -> Node:
        """Read NAME=RELEASE:MACHINE[@PLACE][~WAY]."""
        text_of_way = text.partition("~")[2]
        way, _equals, user_data = text_of_way.partition("=")
        name, _equals, rest = text.removesuffix(f"~{text_of_way}").partition("=")
        release, _colon, rest = rest.partition(":")
        machine, _at, place = rest.partition("@")
        known = sorted(path.stem for path in HERE.glob("simulator/machines/*.json"))
        if (
            not name
            or release not in SUITES
            or machine not in [*known, "none", "real"]
            or place not in ("", "door", "inside")
            or way not in ("", "ubuntu", "pod", "cloud-init")
            or bool(user_data) != (way == "cloud-init")
        ):
            raise LabError(
                f"'{text}' is no node; wanted NAME=RELEASE:MACHINE[@PLACE][~WAY] with RELEASE one of "
                f"{', '.join(SUITES)}, MACHINE one of none, real, {', '.join(known)}, PLACE one of door, inside, "
                "and WAY one of ubuntu, pod, cloud-init=FILE"
            )
        return cls(name, release, machine, place, way, user_data)

    @property
    def kind(self) -> str:
        """The kind of image: with NVIDIA's own tools, or with the simulated ones, and then with cloud-init too."""
        return "real" if self.machine == "real" else "cloud-init" if self.way == "cloud-init" else "simulated"


def digest(*parts: bytes) -> str:
    """A short name for some content."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def base_image(release: str) -> str:
    """The name of a release's base image; built when missing."""
    suite = SUITES[release]
    image = f"localhost/gpuops-base:{release}-{digest(' '.join(MMDEBSTRAP).encode(), EPOCH.encode())}"
    if not exists("image", image):
        print(f"lab: building {image} (once, about half a minute)", file=sys.stderr, flush=True)
        with tempfile.NamedTemporaryFile(suffix=".tar") as tar:
            made = subprocess.run(
                as_root(*MMDEBSTRAP, suite, tar.name, SOURCE_DATE_EPOCH=EPOCH),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                raise LabError(f"mmdebstrap {suite} failed with {made.returncode}: {made.stderr.strip()[-2000:]}")
            podman("import", "--change", 'CMD ["/bin/bash"]', tar.name, image)
    return image


def node_image(release: str, kind: str) -> str:
    """The name of a node image; built when its content is not there yet."""
    if ready := os.environ.get("FLEET_NODE_IMAGE"):
        return ready.replace("{}", release if kind == "simulated" else f"{release}-{kind}")
    sources = [HERE / "Containerfile", *sorted((HERE / "simulator").rglob("*"))]
    content = [b"%s\0%s" % (str(p.relative_to(HERE)).encode(), p.read_bytes()) for p in sources if is_source(p)]
    base = base_image(release)
    image = f"localhost/gpuops-node:{release}-{kind}-{digest(base.encode(), *content)}"
    if not exists("image", image):
        print(f"lab: building {image} (once, about half a minute)", file=sys.stderr, flush=True)
        build = [
            "build", "--quiet", "--build-arg", f"BASE={base}", "--build-arg", f"KIND={kind}",
            "--ignorefile", str(HERE / "containerignore"), "--tag", image, str(HERE),
        ]  # fmt: skip
        try:
            podman(*build, probe_image=base)
        except LabError as error:
            # Mostly a mirror that stalls.
            print(f"lab: {error}; building once more", file=sys.stderr, flush=True)
            podman(*build, probe_image=base)
    return image


def is_source(path: Path) -> bool:
    """Leave out what Python left behind."""
    return path.is_file() and "__pycache__" not in path.parts


def images(nodes: list[Node]) -> dict[Node, str]:
    """The image of each node; two labs that start at once build each image once."""

    def of_release(release: str) -> dict[Node, str]:
        return {node: node_image(release, node.kind) for node in nodes if node.release == release}

    with Path(tempfile.gettempdir(), f"gpuops-lab-{os.getuid()}.lock").open("w") as lock, ThreadPoolExecutor(2) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = list(pool.map(of_release, sorted({node.release for node in nodes})))
    return {node: image for found in built for node, image in found.items()}


def start(node: Node, image: str, lab: str, password: str, key: str, address: str) -> tuple[str, int]:
    """Start one node as it would be handed out, and return the address and port of its sshd."""
    container = f"{lab}-{node.name}"
    init = ["sh", "-c", POD_COMMAND] if node.way == "pod" else ["/sbin/init"]
    rights = [] if node.way == "pod" else ["--cap-add=NET_ADMIN", "--systemd=always"]
    seed = ["--volume", f"{Path(node.user_data).resolve()}:{SEED}:ro"] if node.user_data else []
    real = REAL if node.machine == "real" else []
    door = [f"--network={lab}-outside:ip={address}", f"--network={lab}-inside"]
    network = {"": ["--publish=127.0.0.1::22"], "door": door, "inside": [f"--network={lab}-inside"]}[node.place]
    run(
        container,
        image,
        "--hostname",
        node.name,
        "--label",
        f"{LABEL}={lab}",
        *rights,
        *network,
        *real,
        *seed,
        image,
        *init,
    )
    hand_out = ["exec", "-i", container, "sh", "-ec", HAND_OUT, "sh", node.machine]
    podman(*hand_out, stdin=f"root:{password}\n", probe_image=image)
    if node.way:
        way = {"ubuntu": UBUNTU, "pod": POD, "cloud-init": CLOUD_INIT}[node.way]
        podman("exec", "-i", container, "sh", "-ec", way, stdin=key, probe_image=image)
    if node.place == "":
        return "127.0.0.1", int(podman("port", container, "22/tcp").strip().rpartition(":")[2])
    if node.place == "door":
        return address, 22
    template = f'{{{{(index .NetworkSettings.Networks "{lab}-inside").IPAddress}}}}'
    return podman("inspect", "--format", template, container).strip(), 22


def run(container: str, image: str, *arguments: str) -> None:
    """Start a container. podman looks for a free port and takes it a moment later, when it may be somebody else's."""
    for tries_left in reversed(range(5)):
        try:
            podman("run", "--detach", "--name", container, *arguments, probe_image=image)
            return
        except LabError as error:
            if "address already in use" not in str(error) or not tries_left:
                raise
            podman("rm", "--force", container)


def networks(lab: str, count: int) -> list[str]:
    """Make the network that this machine has no address in, and the one outside; return addresses of the latter.

    A machine at the door keeps its address when it is started again. It publishes no port, since on a host with CNI
    that may lead to its address inside.
    """
    podman("network", "create", "--internal", f"{lab}-inside")
    podman("network", "create", f"{lab}-outside")
    subnet = podman("network", "inspect", "--format", "{{(index .Subnets 0).Subnet}}", f"{lab}-outside").strip()
    return [str(ipaddress.ip_network(subnet)[10 + number]) for number in range(count)]


def providers_key(folder: Path) -> str:
    """The public half of the key that the user has given to the provider."""
    key = folder / "home" / ".ssh" / "id_ed25519"
    if not key.exists():
        key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return key.with_suffix(".pub").read_text()


def lab_name(folder: Path) -> str:
    """A lab is named after its folder, so that a second run finds what the first one left."""
    return f"gpuops-{digest(str(folder.resolve()).encode())[:8]}"


def up(folder: Path, nodes: list[Node]) -> None:
    """Start the nodes and write the inventory."""
    require()
    down(folder)
    live = len(podman("ps", "--quiet", "--filter", f"label={LABEL}").split())
    if live + len(nodes) > MAX_NODES:
        raise LabError(f"{live} nodes are running and at most {MAX_NODES} may; next: podman ps --filter label={LABEL}")
    chosen = images(nodes)
    lab = lab_name(folder)
    password = secrets.token_urlsafe(12)
    addresses = networks(lab, len(nodes)) if any(node.place for node in nodes) else [""] * len(nodes)
    key = providers_key(folder) if any(node.way in ("ubuntu", "pod") for node in nodes) else ""
    with ThreadPoolExecutor(4) as pool:
        places = list(
            pool.map(lambda node, address: start(node, chosen[node], lab, password, key, address), nodes, addresses)
        )
    jump_hosts = [node.name for node in nodes if node.machine == "none"]
    groups: dict[str, dict[str, dict[str, object]]] = {}
    for node, (address, port) in zip(nodes, places):
        group = groups.setdefault("bastion" if node.machine == "none" else "gpu", {})
        group[node.name] = {
            "ansible_host": address,
            "ansible_port": port,
            **({} if node.way else {"ansible_password": password}),
            **({"ansible_user": "ubuntu"} if node.way == "ubuntu" else {}),
            "lab_container": f"{lab}-{node.name}",
            "ssh_bootstrap_dir": str(folder.resolve() / "home" / ".ssh"),
            # Nodes, controller and other tests share a machine: a change takes longer here to be proven.
            "sshd_hardening_rollback_seconds": 120,
            **({"ssh_bootstrap_jump_hosts": jump_hosts} if node.place == "inside" else {}),
        }
    group_vars = folder / "inventory" / "group_vars"
    group_vars.parent.mkdir(parents=True, exist_ok=True)
    if not group_vars.is_symlink():
        group_vars.symlink_to(REPOSITORY / "inventory" / "group_vars")
    inventory = group_vars.with_name("nodes.yml")
    inventory.touch(mode=0o600)
    inventory.write_text(json.dumps({name: {"hosts": hosts} for name, hosts in groups.items()}, indent=2) + "\n")


def down(folder: Path) -> None:
    """Remove the nodes of the lab in this folder."""
    require()
    found = podman("ps", "--all", "--quiet", "--filter", f"label={LABEL}={lab_name(folder)}").split()
    if found:
        podman("rm", "--force", "--time", "0", *found)
    # The disk of a pod that was started again.
    podman("image", "prune", "--force", "--filter", f"label={LABEL}={lab_name(folder)}")
    for place in ("inside", "outside"):
        if exists("network", f"{lab_name(folder)}-{place}"):
            podman("network", "rm", "--force", f"{lab_name(folder)}-{place}")
    (folder / "inventory" / "nodes.yml").unlink(missing_ok=True)


def main() -> int:
    """Do what the command line asks; say in one line why not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("nodes", nargs="*", metavar="NAME=RELEASE:MACHINE")
    parser.add_argument("--dir", type=Path, required=True, dest="folder", help="where the lab keeps its inventory")
    args = parser.parse_intermixed_args()
    try:
        if args.action == "up":
            up(args.folder, [Node.parse(text) for text in args.nodes])
        else:
            down(args.folder)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
