# `make` alone lists the targets. VENV=… puts the virtual environment elsewhere,
# PYTHON=… picks the interpreter it is made with, ARGS=… is passed on.

VENV ?= .venv
ARGS ?=
export VENV

TARGETS := $(shell sed -n 's/^\([a-z0-9-]*\):.*  *\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))

.PHONY: $(TARGETS)

# Not for `up`: it prints the path of the command as the caller can run it.
$(filter-out help up join install,$(TARGETS)): export PATH := $(abspath $(VENV))/bin:$(PATH)

help:  ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' Makefile | expand -t 26

up:  ## Install, then serve on this machine: node, balancer and a small model
	@scripts/install
	@exec $(VENV)/bin/edgeserve up $(ARGS)

join:  ## Install, join a household, then serve there: make join ARGS=http://…
	@scripts/install
	@$(VENV)/bin/edgeserve join $(ARGS)
	@exec $(VENV)/bin/edgeserve node start --balancer $(firstword $(filter http%,$(ARGS)))

install:  ## Make the virtual environment with everything for development
	@scripts/install dev

check: install  ## Install, then run every check and test
	@scripts/check

fix: install  ## Format the code and repair what can be repaired
	ruff check --fix-only --quiet
	ruff format

test: install  ## Run the tests: make test ARGS='-k drain'
	@scripts/test $(ARGS)

fuzz: install  ## Test the parsers and the proof with 10,000 inputs of each kind
	@pytest tests/edgeserve/http/*/test_fuzz.py --hypothesis-profile=fuzz --timeout=900

attacks: install  ## Attack a fleet in network namespaces, with 15,000 half-open connections
	@HALF_OPEN=15000 pytest tests/security --timeout=900 -rs $(ARGS)

faults: install  ## Kill and freeze real engines under load, and count (20 min)
	@KILLS=500 pytest tests/balancer/clients/test_crash.py
	@python -m tests.endpoint.faults.strike $(ARGS)

check-power: install  ## Cut the power of a whole fleet 20 times, with clocks that jump (1 min)
	@POWER=20 pytest tests/fleet/test_power.py -rs $(ARGS)

check-caches: install  ## Move what slots hold between real engines, and damage it (1 min)
	@CACHES=1 pytest tests/endpoint/caches -rs $(ARGS)

check-docs: install  ## Do what the pages of docs/ say, on machines of their own (3 min)
	@DOCS=1 pytest tests/docs -rs $(ARGS)

check-kubernetes: install  ## Test the Helm chart, and a roll-out of nodes found by DNS (3 min)
	@scripts/check-kubernetes $(ARGS)

check-proxies: install  ## Test nginx, HAProxy, Caddy and keepalived before balancers (3 min)
	@scripts/check-proxies $(ARGS)

check-debian: install  ## Time the first minute on bare Debian machines (5 min)
	@python -m tests.rootfs.first_minute $(ARGS)

check-arm64: install  ## The same on a Raspberry Pi under emulation (20 min)
	@python -m tests.rootfs.arm64 $(ARGS)

check-dashboard: install  ## Test the dashboard in headless Chromium (1 min)
	@scripts/check-dashboard $(ARGS)

check-llama: install  ## Run llama.cpp's own server tests through node and balancer (5 min)
	@python -m tests.conformance.run $(ARGS)

bench: install  ## Measure, and print figures
	@pytest -m bench -s tests/bench $(ARGS)

bench-proxy: install  ## Compare the proxy with nginx, HAProxy and LLM routers (5 min)
	@python -m tests.bench.proxy.compare $(ARGS)

bench-routing: install  ## Compare routing on unequal machines with other routers (8 min)
	@python -m tests.bench.routing.decide
	@python -m tests.bench.routing.compare $(ARGS)

bench-fleet: install  ## Compare routing on real engines with other routers (20 min)
	@python -m tests.bench.fleet.compare $(ARGS)

bench-many: install  ## Measure a balancer in front of 200 nodes with 1,000 engines (3 min)
	@python -m tests.bench.many.decide
	@python -m tests.bench.many.run $(ARGS)

demo: install  ## Run a small fleet on loopback: two nodes and a balancer
	@scripts/demo

check-quantize:  ## Test quantizing; first compiles llama-cpp-python (2 to 5 min)
	@scripts/install quantize
	@scripts/test tests/quantize $(ARGS)

check-native:  ## Test a build of `edgeserve engine build`; first makes it (10 min)
	@scripts/install quantize
	@scripts/check-native $(ARGS)

check-clients: install  ## Test unmodified clients against a real fleet (6 min, 1.3 GB)
	@scripts/check-clients $(ARGS)

check-convert: install  ## Test converting; first installs PyTorch, if missing (1 GB)
	@scripts/check-convert $(ARGS)

check-containers: install  ## Make the container image, and run it with podman (5 min)
	@scripts/check-containers $(ARGS)

check-servers: install  ## Run Ray Serve, mlx_lm.server and others behind a balancer (5 min)
	@scripts/check-servers $(ARGS)
