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

from ansible import context
from ansible.utils.display import Display


def is_ad_hoc() -> bool:
    """Whether this is the command ansible, which alone has the option --one-line."""
    return "one_line" in context.CLIARGS


def show(lines: Iterable[tuple[str, str | None]]) -> None:
    """Show lines of text, each with its color."""
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
