# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._trust.authorized_keys import (
    BEGIN,
    END,
    Wish,
    block_of,
    describe,
    fingerprint_of,
    renew,
    without,
)
from hypothesis import given
from hypothesis import strategies as st


def key(name: str) -> str:
    """A public key of the right shape; its owner is its comment."""
    body = name.encode().ljust(32, b".")
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (b"ssh-ed25519", body))
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} {name}"


ALICE, BOB, ME, OTHER = map(key, ("alice", "bob", "me", "other"))
MINE = frozenset({fingerprint_of(ME)})


def text(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def test_lines_of_others_stay_byte_for_byte() -> None:
    before = f"# by hand\r\n\n{OTHER}\nssh-future AAAA nobody knows this\n\udcff no newline at the end"
    assert renew(before, Wish([ALICE])) == before + "\n" + text(BEGIN, ALICE, END)


def test_block_stays_where_it_is_and_is_written_anew() -> None:
    before = text("# one", BEGIN, ALICE, BOB, END, "# two")
    assert renew(before, Wish([BOB])) == text("# one", BEGIN, BOB, END, "# two")
    assert renew(before, Wish([ALICE, BOB])) == before
    assert renew(before, Wish()) == text("# one", "# two")


def test_line_of_somebody_else_does_not_undo_our_options() -> None:
    restricted = f'from="10.0.0.0/8" {ALICE}'
    assert renew(text(ALICE, OTHER), Wish([restricted])) == text(OTHER, BEGIN, restricted, END)


def test_exclusive_takes_all_but_comments_and_the_key_in_use() -> None:
    before = text("# note", OTHER, "cert-authority " + BOB, "ssh-future AAAA x", ME)
    assert renew(before, Wish([ALICE], exclusive=True, own=MINE)) == text("# note", ME, BEGIN, ALICE, END)


@pytest.mark.parametrize(
    "before",
    [text(ME), text(BEGIN, ME, ALICE, END), text(BEGIN, ALICE, END, ME), text(f"restrict {ME}")],
)
@pytest.mark.parametrize("lines", [[], [ALICE], [ALICE, ME], [f"restrict {ME}"]])
@pytest.mark.parametrize("exclusive", [True, False])
def test_key_in_use_stays_once_and_as_it_was(before: str, lines: list[str], exclusive: bool) -> None:
    wish = Wish(lines, exclusive, MINE, gone=MINE | {fingerprint_of(BOB)})
    after = renew(before, wish)
    assert [line for line in after.splitlines() if ME in line] != []
    assert len([line for line in after.splitlines() if ME in line]) == 1
    assert renew(after, wish) == after


def test_without_its_end_nothing_is_taken_for_our_block() -> None:
    before = text(BEGIN, ALICE, OTHER)
    assert block_of(before) == []
    assert renew(before, Wish([BOB])) == text(BEGIN, BOB, END, ALICE, OTHER)


def test_keys_of_those_who_are_out_go_from_everywhere() -> None:
    gone = {fingerprint_of(BOB)}
    before = text(OTHER, f"no-pty {BOB}", BEGIN, ALICE, END)
    assert renew(before, Wish([ALICE], gone=gone)) == text(OTHER, BEGIN, ALICE, END)
    assert without(before, gone) == text(OTHER, BEGIN, ALICE, END)
    assert without("ssh-future AAAA x", gone) == "ssh-future AAAA x"


@pytest.mark.parametrize(
    "line", [f"{BOB}\0", f"{BOB} a\0b", f"{BOB} a\rb", BOB.replace(" bob", "\v bob"), f"{BOB}\r\f"]
)
def test_keys_go_also_from_lines_that_only_sshd_reads(line: str) -> None:
    """Seen with OpenSSH 9.2, which logs in by each of these."""
    assert without(text(line, ALICE), {fingerprint_of(BOB)}) == text(ALICE)


def test_description_has_fingerprints_and_no_keys() -> None:
    assert describe(text("# x", f"restrict {ALICE}")) == [f"key {fingerprint_of(ALICE)} alice (restrict)"]


def test_key_in_use_is_given_no_options_that_could_shut_it_out() -> None:
    there = text(BEGIN, ME, END)
    assert renew(there, Wish([f'expiry-time="20200101" {ME}'], own=MINE)) == there


def test_lines_are_those_of_sshd() -> None:
    command = f'command="a\x0cb" {BOB}'
    assert without(text(command, ALICE), {fingerprint_of(BOB)}) == text(ALICE)
    comment = "# a\x0cb\x85c"
    assert renew(text(comment, ME), Wish(exclusive=True, own=MINE)) == text(comment, ME)


def test_text_of_a_file_cannot_write_to_the_terminal() -> None:
    assert describe(f"{ALICE}\x1b[2J\r\n") == [f"key {fingerprint_of(ALICE)} alice?[2J"]


def test_key_in_use_does_not_become_the_comment_of_a_last_line_without_newline() -> None:
    assert renew(text(BEGIN, ME, END) + OTHER, Wish(own=MINE)) == text(OTHER, ME)


LINES = st.lists(st.sampled_from([ALICE, BOB, ME, OTHER, BEGIN, END, "", "# c", "restrict " + BOB, "junk"]), max_size=8)


@given(LINES, st.lists(st.sampled_from([ALICE, BOB, ME]), unique=True), st.booleans(), st.booleans())
def test_a_second_run_changes_nothing(before: list[str], lines: list[str], exclusive: bool, newline: bool) -> None:
    wish = Wish(lines, exclusive, MINE)
    start = "\n".join(before) + ("\n" if newline else "")
    after = renew(start, wish)
    assert renew(after, wish) == after
    found = {fingerprint_of(line) for line in after.splitlines()}
    assert {fingerprint_of(line) for line in lines} <= found
    assert not MINE & {fingerprint_of(line) for line in start.splitlines()} or found >= MINE
