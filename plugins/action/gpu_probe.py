# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control node half of gpu_probe: one round trip, no Python on the node, all parsing here."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader, shell_loader
from ansible_collections.gpuops.fleet.plugins.module_utils._base.problem import Problem, failed_result
from ansible_collections.gpuops.fleet.plugins.module_utils._see.gpu.options import ARGUMENT_SPEC
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.collector import CollectorError, new_marker, no_answer
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.failure import action_failure
from ansible_collections.gpuops.fleet.plugins.plugin_utils._base.terminal import is_ad_hoc, show
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.answer import (
    NodeAnswer,
    collector_command,
    parse_answer,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.health import (
    Expectations,
    GpuHealthError,
    is_version,
    merged_policy,
)
from ansible_collections.gpuops.fleet.plugins.plugin_utils._see.gpu.state import (
    Question,
    needs_nvml,
    not_good,
    probe_result,
)

_VERSIONS = ("min_driver", "cuda")
# Of the task's timeout, to come there and back: an answer says more than that there was none in time.
_WAY_SECONDS = 3

# Before the forks, as ansible-playbook does it: ad hoc, each node's worker would read the documentation of both again.
connection_loader.get("ssh", class_only=True)
shell_loader.get("sh", class_only=True)


class ActionModule(ActionBase):
    """Run the collector on the node and judge its answer."""

    TRANSFERS_FILES = False
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        host = self._task.delegate_to or (task_vars or {}).get("inventory_hostname", "the node")
        options, question = self._asked()
        # What ends the task on the control node does not end the collector on the node.
        limits = [options["deadline"]]
        if self._task.async_val:
            limits.append(self._task.async_val)
        if self._task.timeout:
            limits.append(max(1, self._task.timeout - _WAY_SECONDS))
        deadline = min(limits)
        began = time.monotonic()
        answer = self._ask(host, options, question, deadline)
        nvml = None
        if options["backend"] == "nvml" or (options["backend"] == "auto" and needs_nvml(answer)):
            nvml = self._ask_nvml(max(1, deadline - int(time.monotonic() - began)), task_vars)
        result.update(probe_result(answer, question, nvml))
        bad = not_good(result["health"], options["fail_on"])
        if bad:
            steps = "; ".join(dict.fromkeys(check["remedy"] for check in bad if check["remedy"]))
            result.update(failed_result([Problem("gpu_probe", seen=result["summary"], remedy=steps, host=host)]))
        # Ad hoc a person looks at the screen, where the answer of a big node is some pages.
        if is_ad_hoc():
            show([(f"{host}: {result['summary']}", None)])
        return self._as_job(result) if self._task.async_val else result

    def _asked(self) -> tuple[dict[str, Any], Question]:
        """The options of the task; wrong ones fail it before the node is asked."""
        given = self._task.args.get("expect")
        for name in _VERSIONS:
            version = given.get(name) if isinstance(given, dict) else None
            if isinstance(version, float):
                raise AnsibleActionFail(
                    f"expect.{name} was read as the number {version}, so a final 0 would be lost."
                    f' Next: write it in quotes, as in {name}: "{version:.2f}"'
                )
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        expect = Expectations(**(options["expect"] or {}))
        if options["deadline"] < 1:
            raise AnsibleActionFail(f"deadline must be at least 1 second, got {options['deadline']}")
        if options["kernel_log_hours"] < 0:
            raise AnsibleActionFail(f"kernel_log_hours must be 0 or more, got {options['kernel_log_hours']}")
        for name in _VERSIONS:
            value = getattr(expect, name)
            if value is not None and not is_version(value):
                raise AnsibleActionFail(f"expect.{name} must be a version such as 550.90.07, got {value!r}")
        if "health" not in options["fields"] and (options["expect"] or options["fail_on"] != "none"):
            raise AnsibleActionFail(
                "expect and fail_on need the checks; next: add health to fields, or leave fields out"
            )
        if expect.nvlinks is not None and "nvlinks" not in options["fields"]:
            raise AnsibleActionFail("expect.nvlinks needs the links; next: add nvlinks to fields, or leave fields out")
        try:
            merged_policy(options["policy"])
        except GpuHealthError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        fields = frozenset(options["fields"])
        question = Question(fields, expect, options["policy"], options["kernel_log_hours"], options["backend"])
        return options, question

    def _ask(self, host: str, options: Mapping[str, Any], question: Question, deadline: int) -> NodeAnswer:
        marker = new_marker()
        command = collector_command(
            marker,
            deadline,
            fields=question.fields,
            hours=question.kernel_log_hours,
            run_smi=options["backend"] in ("auto", "nvidia_smi"),
        )
        # Only become may need a terminal. It passes an answer on in pieces of 4 KB and may lose the end, which is why
        # Ansible starts a sleep after a command unless the caller names the shell.
        become = bool(self._connection.become)
        answered = self._low_level_execute_command(
            f"{self._compute_environment_string()} {command}".strip(),
            sudoable=become,
            executable=None if become else self._play_context.executable,
            encoding_errors="replace",
        )
        try:
            return parse_answer(answered["stdout"], marker)
        except CollectorError as exc:
            raise action_failure(no_answer(exc, "gpu_probe", host, answered)) from exc

    def _ask_nvml(self, deadline: int, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module half on the node; without Python there the answer says so."""
        try:
            done = self._execute_module(
                module_name="gpuops.fleet.gpu_probe",
                module_args={"backend": "nvml", "deadline": deadline},
                task_vars=task_vars,
            )
        except AnsibleError as exc:
            # On a sick node the disk may be full or read-only: what nvidia-smi said is worth more.
            done = {"msg": str(exc)}
        if isinstance(done.get("nvml"), dict):
            return dict(done["nvml"])
        seen = (str(done.get("module_stderr") or done.get("msg") or "").strip() or "no answer").splitlines()[-1][:500]
        return {
            "outcome": "not_asked",
            "error": f"NVML was not asked, which takes Python 3.8 on the node: {seen}",
            "gpus": [],
        }

    def _as_job(self, result: dict[str, Any]) -> dict[str, Any]:
        """A task with async wants a job. With poll it waits for it anyway; else the answer waits on the node."""
        if self._task.poll:
            self._task.async_val = 0
            return result
        job = f"{secrets.randbelow(10**12)}.{secrets.randbelow(10**5)}"
        folder = self.get_shell_option("async_dir", default="~/.ansible_async")
        answer = json.dumps({**result, "ansible_job_id": job, "started": 1, "finished": 1})
        # A file, since not every connection carries the input of a command.
        shell = self._connection._shell
        tmp = shell.tmpdir or self._make_tmp_path()
        file = shell.join_path(tmp, "answer")
        self._transfer_data(file, answer)
        self._fixup_perms2([tmp, file])
        written = self._low_level_execute_command(f"umask 77 && mkdir -p {folder} && cat {file} > {folder}/{job}")
        self._remove_tmp_path(tmp)
        if written["rc"]:
            raise AnsibleActionFail(f"the answer cannot be left in {folder} on the node: {written['stderr'].strip()}")
        return {
            "changed": False,
            "ansible_job_id": job,
            "started": 1,
            "finished": 0,
            "results_file": f"{folder}/{job}",
        }
