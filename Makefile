# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
.PHONY: help demo demo-down test test-all test-matrix check lint unit setup

help:
	@echo "make demo         three nodes, site.yml on them, and the result on the screen"
	@echo "make demo-down    remove them again"
	@echo "make test         everything that a change has to pass"
	@echo "make check        the fast part of it: linters, units, and two nodes with bad input"
	@echo "make lint unit    each of the first two alone"
	@echo "make test-all AREA=x  what repeats it on other releases and in other mixtures; without AREA it names them"
	@echo "make test-matrix  units and Molecule on the newest ansible-core, where there is a Python 3.13"

setup:
	@tests/setup.sh

demo: setup
	@.venv/bin/python tests/lab/demo.py up

demo-down: setup
	@.venv/bin/python tests/lab/demo.py down

test: setup
	.venv/bin/pytest -n 2 --dist loadgroup

test-all: setup
	.venv/bin/pytest -n 2 --dist loadgroup --full "$(AREA)"

check: lint unit
	.venv/bin/pytest -n 2 --dist loadgroup tests/integration/test_bad_input.py

lint: setup
	.venv/bin/pytest -n 2 tests/gate/test_lint.py

unit: setup
	.venv/bin/pytest -n auto tests/unit

test-matrix:
	@python=$$(tests/find_python.sh) && VENV=.venv-matrix PYTHON=$$python tests/setup.sh
	.venv-matrix/bin/pytest -n 2 --dist loadgroup tests/unit tests/molecule
