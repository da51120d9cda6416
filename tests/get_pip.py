# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the place of the get-pip.py that ansible-test downloads: pip from the wheel that Python itself carries."""

from __future__ import annotations

import ensurepip
import runpy
import sys
from pathlib import Path

places = [Path(ensurepip.__file__).parent / "_bundled"]
if debian := getattr(ensurepip, "_WHEEL_PKG_DIR", None):
    places.insert(0, Path(debian))
wheel = next(wheel for place in places for wheel in sorted(place.glob("pip-*.whl")))
sys.path.insert(0, str(wheel))
sys.argv = ["pip", "install", *(word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel"))]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
