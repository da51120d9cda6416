# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab takes and makes of its command line; the nodes themselves are met in Molecule and tests/integration."""

from __future__ import annotations

import lab
import pytest


def test_node_is_read_from_its_text() -> None:
    assert lab.Node.parse("gpu-1=deb12:h100x8-570") == lab.Node("gpu-1", "deb12", "h100x8-570")
    assert lab.Node.parse("bastion-1=deb13:none@door") == lab.Node("bastion-1", "deb13", "none", "door")
    assert lab.Node.parse("a=deb13:real@inside~ubuntu") == lab.Node("a", "deb13", "real", "inside", "ubuntu")
    assert lab.Node.parse("a=deb13:real~cloud-init=/x=y@z~") == lab.Node(
        "a", "deb13", "real", way="cloud-init", user_data="/x=y@z~"
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a=deb11:t4x1-470", "simulated"),
        ("a=deb12:real", "real"),
        ("a=deb12:t4x1-470~pod", "simulated"),
        ("a=deb12:t4x1-470~cloud-init=FILE", "cloud-init"),
    ],
)
def test_each_node_gets_the_image_of_its_kind(text: str, kind: str) -> None:
    assert lab.Node.parse(text).kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpu-1",
        "gpu-1=deb12",
        "gpu-1=deb12:h200",
        "gpu-1=deb10:real",
        "=deb12:real",
        "a=deb12:none@home",
        "a=deb12:real~vm",
        "a=deb12:real~cloud-init",
        "a=deb12:real~pod=FILE",
    ],  # fmt: skip
)
def test_text_that_is_no_node_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(lab.LabError, match=r"deb11, deb12, deb13.*h100x8-570"):
        lab.Node.parse(text)


@pytest.mark.parametrize(("kind", "image"), [("simulated", "reg/node:deb12"), ("real", "reg/node:deb12-real")])
def test_ready_images_are_taken_as_they_are(kind: str, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_NODE_IMAGE", "reg/node:{}")
    assert lab.node_image("deb12", kind) == image
