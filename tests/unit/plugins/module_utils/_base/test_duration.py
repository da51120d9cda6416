# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.gpuops.fleet.plugins.module_utils._base.duration import DurationError, seconds


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", 0), ("90", 90), ("12h", 43200), ("1w2d", 777600), ("1m1s", 61), ("1H30", 3630), ("2M", 120)],
)
def test_duration(text: str, wanted: int) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "h", "12 h", "-5m", "1y", "12h!", "always", "1.5h", "٣h"])
def test_what_openssh_does_not_take(text: str) -> None:
    with pytest.raises(DurationError, match="is no time such as 12h"):
        seconds(text)
