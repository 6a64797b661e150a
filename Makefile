# Two commands on a fresh machine: `make demo` does the main job, `make test` proves that it is right.
# Both build their own .venv from constraints.txt; nothing else on the machine is touched.

# paddle2onnx has wheels for Python 3.11 and 3.12 only.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Two tests at a time: most of each is Python on one core, and those that measure must not crowd each other out.
PYTEST := $(BIN)/python -m pytest --numprocesses 2
# Threads of one that wait for each other must not spin on the core that the other works on.
test slow: export OMP_WAIT_POLICY := PASSIVE
READY := .venv/ready
# Compiled once, when first imported, instead of in every process: Paddle alone takes seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slow bench check clean

demo: $(READY) ## Export alexnet-dy and its baseline, check, benchmark at batch 512, predict on real images.
	$(BIN)/python examples/01_main_job.py

test: $(READY) ## Every test but the slow ones.
	$(PYTEST) --dist loadfile -m "not slow"

slow: $(READY) ## The slow tests alone.
	$(PYTEST) --dist load --maxschedchunk 1 -m slow

bench: $(READY) ## The recorded benchmarks, then the pages made from them: many hours, on a quiet machine.
	$(BIN)/python benchmarks/as_fast_as_plain.py
	$(BIN)/python benchmarks/beside_eager.py
	$(BIN)/python benchmarks/gates.py
	$(BIN)/python benchmarks/against_frozen.py
	$(BIN)/python benchmarks/known_batch.py
	$(BIN)/python benchmarks/kw_beside_dy.py
	$(BIN)/python benchmarks/auto_beside_tuned.py
	$(BIN)/python benchmarks/zoo.py
	$(BIN)/python benchmarks/models_page.py
	$(BIN)/python benchmarks/large.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/trust.py
	$(BIN)/python benchmarks/readme_tables.py

check: $(READY) ## Format, lint, types, layer rule.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "dyx needs Python 3.11 or 3.12 to export (paddle2onnx has no other wheels); none was found on PATH. Set PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[paddle,onnx,openvino,bench,loadgen,train,plot,log,dev]'
	touch $(READY)

clean: ## Remove what these commands made.
	rm -rf .venv bundles demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
