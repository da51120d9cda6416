# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.process import Finished
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.verification import (
    alias_command,
    first_command,
    read_first,
    read_verified,
)

MACHINE = "7a3c5c0e pid:[4026531836]"
BY_HAND = "ssh -F 'my config' gpu-1"
LISTED = f"machine {MACHINE}\nGPU 0: NVIDIA L40S (UUID: GPU-1)\n"


@pytest.mark.parametrize(
    ("done", "must_list", "machine", "problems"),
    [
        (Finished(0, LISTED, ""), True, MACHINE, []),
        # What a login prints comes before it.
        (Finished(0, f"Welcome\n{LISTED}", ""), True, MACHINE, []),
        (Finished(9, f"machine {MACHINE}\n", "no devices were found"), False, MACHINE, []),
        (
            Finished(9, f"machine {MACHINE}\n", "no devices were found"),
            True,
            MACHINE,
            [Problem("nvidia-smi -L ended with 9", "no devices were found", "ssh -F 'my config' gpu-1 nvidia-smi")],
        ),
        (
            Finished(None, f"machine {MACHINE}\n", ""),
            True,
            MACHINE,
            [Problem("nvidia-smi -L did not end within 60 s", "", "ssh -F 'my config' gpu-1 nvidia-smi")],
        ),
        (
            Finished(255, "", "Connection refused\n"),
            False,
            "",
            [Problem("the alias gpu-1 does not work, ssh ended with 255", "Connection refused", BY_HAND)],
        ),
        (
            Finished(None, "", ""),
            True,
            "",
            [Problem("the alias gpu-1 does not work, ssh did not end within 60 s", "", BY_HAND)],
        ),
    ],
)  # fmt: skip
def test_alias_tells_its_machine_or_why_not(
    done: Finished, must_list: bool, machine: str, problems: list[Problem]
) -> None:
    assert read_first("gpu-1", "my config", done, 60, must_list) == (machine, problems)


def test_command_that_must_work() -> None:
    assert read_verified("gpu-1", "c", "true", Finished(0, "", "a warning"), 60) == []
    said = Finished(3, "half of it\n", "Traceback\nImportError: no torch\n")
    assert read_verified("gpu-1", "c", "python3 -c 'import torch'", said, 60) == [
        Problem(
            "the verify command ended with 3",
            "ImportError: no torch",
            "ssh -F c gpu-1 'python3 -c '\"'\"'import torch'\"'\"''",
        )
    ]
    assert read_verified("gpu-1", "c", "x", Finished(None, "", ""), 5)[0].what == (
        "the verify command did not end within 5 s"
    )


def test_nvidia_smi_is_run_only_where_it_is_safe() -> None:
    assert first_command(True).endswith("; nvidia-smi -L")
    assert "nvidia-smi" not in first_command(False)


def test_alias_is_used_without_questions_and_without_a_connection_that_is_there() -> None:
    command = alias_command("/home/me/.ssh/config", "gpu-1", "true")
    assert command == [
        "ssh", "-F", "/home/me/.ssh/config", "-o", "BatchMode=yes", "-o", "ControlPath=none", "gpu-1", "true"
    ]  # fmt: skip
