# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where tests find GPUs: the simulator's machines, and recorded output when it lies beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

SIMULATOR = Path(__file__).parent / "simulator"
MACHINES = sorted(path.stem for path in (SIMULATOR / "machines").glob("*.json"))
SHARED = Path(__file__).parents[2].parent / "shared"
CORPUS = SHARED / "corpus" / "gpu"
NO_CORPUS = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no recorded outputs in {CORPUS}")
