# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This plugin util is PRIVATE to the collection: it may change without notice.
"""What an action shows to people, beside the result that it returns."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from ansible import constants as C
from ansible import context
from ansible.utils.display import Display

# The stdout callbacks that write for people. Another one may write a document, as json does, or make events, as that of
# AWX does, and text beside it would spoil it.
_COLLECTIONS = frozenset({"", "ansible.builtin", "ansible.legacy", "ansible.posix", "community.general"})
_FOR_PEOPLE = frozenset(
    {
        "counter_enabled",
        "debug",
        "default",
        "default_without_diff",
        "dense",
        "diy",
        "minimal",
        "oneline",
        "selective",
        "tasks_only",
        "timestamp",
        "unixy",
        "yaml",
    }
)


def is_ad_hoc() -> bool:
    """Return whether this is the command ansible, which alone has the option --one-line."""
    return "one_line" in context.CLIARGS


def is_for_people(callback: str) -> bool:
    """Return whether a stdout callback of that name writes for people; of a strange one nobody knows."""
    collection, _dot, name = callback.rpartition(".")
    return collection in _COLLECTIONS and name in _FOR_PEOPLE


def show(lines: Iterable[tuple[str, str | None]]) -> None:
    """Show lines of text, each with its color, where somebody is there to read them."""
    wanted = C.config.get_config_value
    # Ad hoc it is minimal or oneline, unless the user wants it otherwise twice.
    is_free = not is_ad_hoc() or (wanted("DEFAULT_LOAD_CALLBACK_PLUGINS") and not context.CLIARGS["one_line"])
    if is_free and not is_for_people(wanted("DEFAULT_STDOUT_CALLBACK")):
        return
    display = Display()
    for text, color in lines:
        display.display(text, color=color)


def show_table(lines: Iterable[tuple[str, str | None]]) -> None:
    """Show lines of text with an empty one before and after them."""
    show([("", None), *lines, ("", None)])


def _outlive_reader(stream: TextIO) -> None:
    """Let what cannot be written be lost.

    What a worker shows is written by the thread of the main process that takes the results. An error ends that thread
    without a word, and then the command waits for results for ever: seen with head, less and a full disk, and
    ansible-core 2.19.14, 2.20.10 and 2.21.5. A worker cannot prevent it, since the reader may go at any time.
    """

    def outliving(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def attempt(*args: Any) -> Any:
            try:
                return method(*args)
            except BrokenPipeError:
                # Nobody will read the rest either, and the flush at the exit would complain.
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno(), inheritable=False)
                os.close(null)
            except OSError:
                # The main thread meets it too, and Ansible says it there.
                if threading.current_thread() is threading.main_thread():
                    raise

        return attempt

    stream.write = outliving(stream.write)  # type: ignore[method-assign]
    stream.flush = outliving(stream.flush)  # type: ignore[method-assign]


# The main process imports an action, and with it this file, before the worker that runs it is forked.
_outlive_reader(sys.stdout)
_outlive_reader(sys.stderr)
