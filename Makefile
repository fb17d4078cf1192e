# SPDX-License-Identifier: Apache-2.0
# Everything happens in .venv and build/; nothing needs root. `make help` lists the targets.

SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin
DONE  := $(VENV)/stamps
PIP   := $(BIN)/python -m pip --disable-pip-version-check install -qq --constraint constraints.txt
JOBS  ?= 2
INPUT ?=
RUN   ?= $(HOME)/.cache/omnistream/train-default
REPORTS = $(wildcard build/eval/acceptance.json build/eval/*/results.json build/real/results.json build/twins/twins.json build/probe/results.json)
TWINS ?= $(HOME)/.cache/omnistream/twins
POLICY ?= $(HOME)/.cache/omnistream/policy-default
WEIGHTS ?=
ARGS  ?=

# On a machine with ROS 2 its rclpy and messages are used; elsewhere they come from PyPI.
comma      := ,
EXTRAS     := io,viz,sim,test$(if $(ROS_DISTRO),,$(comma)ros)
VENV_FLAGS := $(if $(ROS_DISTRO),--system-site-packages)
INTERFACES := ros2_ws/src/omnistream_msgs tools/interfaces/tf2_msgs

PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint types arrows colcon docs docs-check bench-node bench-policy-node bench-policy-loop train-default eval-default eval-real twins model-card policy-default eval-policy-default policy-card bench-train verify-tensorrt verify-tensorrt-api clean clean-all

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(DONE)/messages  ## check the machine, make .venv with pinned packages, build the ROS 2 messages

demo: setup  ## stream a recording through two ROS 2 nodes; INPUT=<video | folder | rosbag2> for your own
	@$(BIN)/omnistream-up --network loopback demo $(if $(INPUT),"$(INPUT)") $(ARGS)

test: setup  ## the tests that take minutes at most; ARGS are given to pytest
	$(PYTEST) -m "not slow" $(ARGS)

test-all: setup  ## the slow tests too
	$(PYTEST) $(ARGS)

lint: $(DONE)/dev  ## style of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DONE)/dev  ## static types
	$(BIN)/mypy

arrows: setup  ## which package may import which
	$(BIN)/python -m pytest -q tests/test_arrows.py

colcon: $(DONE)/venv  ## build ros2_ws with colcon (from PyPI where no ROS 2 is sourced)
	@PYTHON=$(BIN)/python tools/colcon_build.sh

docs: setup  ## write the generated reference under docs/
	@$(BIN)/python tools/generate_reference.py
	@$(BIN)/python tools/memory_table.py

docs-check: setup  ## fail when the generated reference is not up to date
	@$(BIN)/python tools/generate_reference.py --check
	@$(BIN)/python tools/memory_table.py --check

bench-node: setup  ## what the node adds to the model's own time; writes build/bench_node.json
	@$(BIN)/python tools/bench_node.py $(ARGS)

bench-policy-node: setup  ## jitter of commands and time to stop; writes build/bench_policy_node.json
	@$(BIN)/python tools/bench_policy_node.py $(ARGS)

bench-policy-loop: setup  ## a policy through its nodes against the same policy in process, paired; writes build/policy_loop
	@$(BIN)/python tools/bench_policy_loop.py $(ARGS)

train-default: setup  ## make the default weights from nothing; goes on where it stopped; MINUTES=<how long this time>
	@nice -n 19 $(BIN)/python -P -m omnistream_training.default_run "$(RUN)" $(MINUTES)

eval-default: setup  ## the default weights on held-out sequences beside what they have to reach; writes build/eval
	@$(BIN)/python tools/eval_default.py $(ARGS)

eval-real: setup  ## a real recording with depth and poses, after scale alignment; DATA=<recording>; writes build/real
	@$(BIN)/omnistream-eval geometry "$(DATA)" --out build/real --align scale_exact --frames 16 64 110 \
	  --policy sink_window:1,15 window:16 full $(ARGS)

twins: setup  ## does memory help? streaming against twins without it; TWINS=<folder> MINUTES=<training, all runs> NOW=<this time>
	@$(BIN)/python tools/held_out_sets.py build/held_out --frames 110
	@nice -n 19 $(BIN)/python -P -m omnistream_training.twins "$(TWINS)" $(or $(MINUTES),540) $(if $(NOW),--now $(NOW)) $(ARGS)
	@$(BIN)/omnistream-eval twins "$(TWINS)" --out build/twins --data \
	  $$(for set in worlds tabletop; do [ ! -d build/held_out/$$set ] || echo $$set=build/held_out/$$set; done)

model-card: setup  ## docs/model_card.md from RUNS=<training runs>, REPORTS=<of the evaluations above>, WEIGHTS=<an average>
	@$(BIN)/omnistream-eval card $(or $(RUNS),"$(RUN)") --results $(REPORTS) --out docs/model_card.md \
	  $(if $(WEIGHTS),--weights "$(WEIGHTS)")

policy-default: setup  ## the default policy from nothing; goes on where it stopped; MINUTES=<training> NOW=<this time>
	@nice -n 19 $(BIN)/python tools/policy_default.py "$(POLICY)" $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
	  $(if $(MINUTES),--minutes $(MINUTES)) $(if $(NOW),--now $(NOW)) $(ARGS)

eval-policy-default: setup  ## POLICY's policy, else the shipped one, beside what it has to reach; writes build/policy
	@$(BIN)/python tools/eval_policy.py --policy "$(or $(wildcard $(POLICY)/policy),default)" \
	  $(if $(WEIGHTS),--weights "$(WEIGHTS)") --control \
  $(if $(wildcard $(POLICY)/control-random/report.json),"random=$(POLICY)/control-random/best$(comma)$(POLICY)/random-weights") \
  $(if $(wildcard $(POLICY)/control-pixels/report.json),"pixels=$(POLICY)/control-pixels/best") $(ARGS)

policy-card: setup  ## docs/policy_card.md from POLICY=<folder of policy-default> and the acceptance in build/policy
	@$(BIN)/omnistream-eval policy-card "$(POLICY)" --results build/policy/acceptance.json --out docs/policy_card.md

bench-train: setup  ## frames per second of training, time spent waiting for data, share of the matrix product peak
	@$(BIN)/python -P -m omnistream_training.bench $(ARGS)

verify-tensorrt: setup  ## on a machine with TensorRT: export, build, compare, measure; writes build/verify_tensorrt/report.json
	@$(BIN)/python -m omnistream_export.verify_tensorrt $(ARGS)

verify-tensorrt-api: $(DONE)/dev  ## our TensorRT code against the real API of 10.16 and 11 (downloads NVIDIA's bindings)
	@$(BIN)/python tools/verify_tensorrt_api.py

clean:  ## remove everything that was built, keep .venv
	rm -rf build ros2_ws/build ros2_ws/install ros2_ws/log *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

clean-all: clean  ## remove .venv too
	rm -rf $(VENV)

# --- steps of the setup; each leaves a stamp, so that a second run starts at once -----------------------------------

$(DONE)/venv:
	@python=$$(PYTHON="$(PYTHON)" tools/check_prerequisites.sh) && \
	  echo "setup 1/4: $(VENV) with $$python" && $$python -m venv $(VENV_FLAGS) $(VENV)
	@mkdir -p $(DONE) && touch $@

$(DONE)/torch: $(DONE)/venv constraints.txt tools/install_torch.py
	@echo "setup 2/4: PyTorch"
	@TORCH_INDEX_URL="$(TORCH_INDEX_URL)" $(BIN)/python tools/install_torch.py constraints.txt
	@touch $@

$(DONE)/packages: $(DONE)/torch pyproject.toml
	@echo "setup 3/4: packages ($(EXTRAS))"
	@$(PIP) --editable ".[$(EXTRAS)]"
	@touch $@

$(DONE)/messages: $(DONE)/packages tools/build_messages.py $(shell find $(INTERFACES) -type f)
	@echo "setup 4/4: ROS 2 messages"
	@$(BIN)/python tools/build_messages.py $(INTERFACES)
	@touch $@

$(DONE)/dev: $(DONE)/packages
	@$(PIP) --editable ".[dev]"
	@touch $@
