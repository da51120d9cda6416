# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated nvidia-smi of the lab.

The machine type is named by GPUOPS_SIM_MACHINE or the first line of /etc/gpuops-lab/machine, a fault by
GPUOPS_SIM_FAULT or the first line of /etc/gpuops-lab/fault.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from _faults import Fault, delay, empty_answer, handle_failure, parse_fault, readings_with, refusal, seen_by_driver
from _machine import EXIT_USAGE, Gpu, LabError, Machine, known_machines, load_machine
from _query import BadFieldError, choose_fields, render_csv
from _text import render_help, render_list, render_nvlinks, render_table, render_topology, render_version
from _xml import render_xml

SETTINGS = Path("/etc/gpuops-lab")
EXIT_BAD_ARGUMENT = 2
INVALID = "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n"


def setting(variable: str, file_name: str) -> str:
    """The environment variable, else the first line of the file, else ''."""
    if os.environ.get(variable):
        return os.environ[variable]
    try:
        return (SETTINGS / file_name).read_text(encoding="utf-8").partition("\n")[0].strip()
    except FileNotFoundError:
        return ""


def choose() -> tuple[Machine, Fault]:
    """The machine and the fault that this node has."""
    name = setting("GPUOPS_SIM_MACHINE", "machine")
    if not name:
        raise LabError(
            f"no machine is chosen; set GPUOPS_SIM_MACHINE or write one of these to {SETTINGS}/machine: "
            + ", ".join(known_machines())
        )
    machine = load_machine(name)
    return machine, parse_fault(setting("GPUOPS_SIM_FAULT", "fault"), machine)


def what_is_asked(arguments: list[str]) -> str:
    """The name of the answer, '' for arguments that this program does not know."""
    if not arguments:
        return "table"
    options = set(arguments)
    if options in ({"-h"}, {"--help"}):
        return "help"
    if options in ({"-L"}, {"--list-gpus"}):
        return "list"
    if arguments == ["--version"]:
        return "version"
    if arguments == ["topo", "-m"]:
        return "topology"
    if arguments == ["nvlink", "-s"]:
        return "nvlinks"
    if len(arguments) == 2 and options & {"-q", "--query"} and options & {"-x", "--xml-format"}:
        return "xml"
    if len(arguments) == 2 and csv_options(arguments):
        return "csv"
    return ""


def csv_options(arguments: list[str]) -> tuple[list[str], list[str]] | None:
    """The columns and the format words of a CSV query."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    columns, words = ([word.strip() for word in given.get(key, "").split(",")] for key in ("--query-gpu", "--format"))
    if "csv" not in words or not columns[0] or set(words) - {"csv", "noheader", "nounits"}:
        return None
    return columns, words


def answer(machine: Machine, fault: Fault, asked: str, arguments: list[str]) -> int:
    """Print what is asked; the exit code."""
    machine = seen_by_driver(fault, machine)
    failure = refusal(fault, machine)
    if failure is None and asked != "version":
        failure = empty_answer(fault, listing=asked == "list")
    if failure:
        sys.stdout.write(failure.text)
        return failure.exit_code
    if asked == "version":
        sys.stdout.write(render_version(machine))
        return 0
    code = 0
    gpus: list[tuple[Gpu, dict[str, str]]] = []
    for gpu in machine.gpus:
        failure = handle_failure(fault, machine, gpu, listing=asked == "list")
        if failure:
            sys.stdout.write(failure.text)
            code = failure.exit_code
            # Up to 595 one GPU that cannot be opened hides all others, except in -L.
            if asked != "list" and machine.version < (610,):
                return code
            continue
        if asked == "list":
            sys.stdout.write(render_list(machine, gpu))
        elif asked == "nvlinks":
            inactive = fault.name == "nvlink_down" and fault.gpu == gpu.index
            sys.stdout.write(render_nvlinks(machine, gpu, inactive=inactive))
        else:
            gpus.append((gpu, readings_with(fault, machine, gpu)))
    if asked == "table":
        sys.stdout.write(render_table(machine, gpus))
    elif asked == "topology":
        sys.stdout.write(render_topology(machine))
    elif asked == "xml":
        sys.stdout.write(render_xml(machine, gpus))
    elif asked == "csv":
        columns, words = csv_options(arguments) or ([], [])
        fields = choose_fields(columns, machine.version)
        header, units = "noheader" not in words, "nounits" not in words
        sys.stdout.write(render_csv(machine, gpus, fields, header=header, units=units))
    return code


def main(arguments: list[str]) -> int:
    """Answer one call."""
    try:
        machine, fault = choose()
    except LabError as error:
        print(f"nvidia-smi of the gpuops.fleet lab: {error}", file=sys.stderr)
        return EXIT_USAGE
    asked = what_is_asked(arguments)
    if not asked:
        sys.stdout.write(INVALID)
        return EXIT_BAD_ARGUMENT
    if asked == "help":
        sys.stdout.write(render_help(machine))
        return 0
    delay(fault)
    try:
        return answer(machine, fault, asked, arguments)
    except BadFieldError as error:
        print(error)
        return EXIT_BAD_ARGUMENT


if __name__ == "__main__":
    # As a C program: silent when the reader of the pipe has gone.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
