# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.fleet.plugins.filter.seconds import FilterModule


def test_seconds() -> None:
    convert = FilterModule().filters()["seconds"]
    assert (convert("52w"), convert(90)) == (31449600, 90)
    with pytest.raises(AnsibleFilterError, match="1y is no time such as 12h"):
        convert("1y")
