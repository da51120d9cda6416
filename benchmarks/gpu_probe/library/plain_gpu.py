# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data of gpu_probe by a plain module: Python on the node runs the commands and parses what they say."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from glob import glob
from typing import Iterator

from ansible.module_utils.basic import AnsibleModule

QUESTIONS = {
    "list": "-L",
    "compute": "--query-gpu=uuid,compute_cap --format=csv,noheader",
    "nvlink": "nvlink -s",
    "topology": "topo -m",
}


def leaves(element: ET.Element, path: str = "") -> Iterator[tuple[str, str]]:
    """The path and the text of each value."""
    for child in element:
        if len(child):
            yield from leaves(child, f"{path}{child.tag}/")
        else:
            yield f"{path}{child.tag}", (child.text or "").strip()


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def main() -> None:
    module = AnsibleModule({}, supports_check_mode=True)
    root = os.environ.get("GPUOPS_SYSROOT", "")
    smi = module.get_bin_path("nvidia-smi", required=True)
    log = ET.fromstring(module.run_command([smi, "-q", "-x"], check_rc=True)[1])
    devices = [path for path in glob(f"{root}/sys/bus/pci/devices/*") if read(f"{path}/vendor") == "0x10de"]
    seen = ("device", "class", "numa_node", "current_link_width", "max_link_width")
    module.exit_json(
        driver=read(f"{root}/proc/driver/nvidia/version"),
        gpus=[dict(leaves(gpu)) for gpu in log.findall("gpu")],
        said={name: module.run_command([smi, *asked.split()])[1] for name, asked in QUESTIONS.items()},
        pci={os.path.basename(path): {name: read(f"{path}/{name}") for name in seen} for path in devices},
        kernel_log=[line for line in read(f"{root}/dev/kmsg").splitlines() if "NVRM" in line],
    )


if __name__ == "__main__":
    main()
