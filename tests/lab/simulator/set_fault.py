# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give the node of the lab on which this runs a fault; without FAULT it is healthy again.

    set_fault.py [FAULT]

It writes the fault that nvidia-smi reads and the tree that goes with it, and takes nvidia-smi away when the fault says
that there is none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from _faults import WITHOUT_TOOLS, parse_fault
from _machine import EXIT_USAGE, LabError, load_machine
from nvidia_smi import SETTINGS, setting
from sysroot import write_tree

TREE = Path("/opt/gpuops-lab/sysroot")
TOOL = Path("/usr/local/bin/nvidia-smi")
PUT_ASIDE = Path("/opt/gpuops-lab/nvidia-smi")


def main(arguments: list[str]) -> int:
    """Set one fault."""
    parser = argparse.ArgumentParser(description="Give this node of the lab a fault, or make it healthy again.")
    parser.add_argument("fault", nargs="?", default="", help="a fault, as in docs/lab.md; none: healthy")
    options = parser.parse_args(arguments)
    try:
        machine = load_machine(setting("GPUOPS_SIM_MACHINE", "machine"))
        fault = parse_fault(options.fault, machine)
        write_tree(machine, fault, TREE)
        (SETTINGS / "fault").write_text(f"{options.fault}\n", encoding="utf-8")
        gone = fault.name in WITHOUT_TOOLS
        source, target = (TOOL, PUT_ASIDE) if gone else (PUT_ASIDE, TOOL)
        if source.exists():
            source.rename(target)
    except (LabError, OSError) as error:
        print(f"set_fault.py of the gpuops.fleet lab: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
