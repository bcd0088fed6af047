# Entry points; everything is built through CMake's presets. `make demo` and `make test` start from a bare machine.
SHELL := /bin/bash
.DEFAULT_GOAL := build
JOBS ?= $(shell nproc)

.PHONY: setup setup-tests build demo test test-tsan fuzz bench format format-check lint size clean

setup:
	@tools/setup.sh

setup-tests:
	@tools/setup.sh --f32

build: setup
	@cmake --preset release >/dev/null
	@cmake --build --preset release -j $(JOBS)

demo: setup
	@cmake --preset release >/dev/null
	@cmake --build --preset release -j $(JOBS) --target bough_cli
	@tools/demo.sh

test: setup-tests
	@tools/run_tests.sh release asan format size fuzz cuda

test-tsan: setup-tests
	@tools/run_tests.sh tsan

fuzz: setup
	@tools/fuzz.sh

bench: build
	@tools/run_bench.sh

format:
	@tools/format.sh

format-check:
	@tools/format.sh --check

size:
	@tools/lint.sh

lint: build
	@tools/lint.sh --tidy

clean:
	rm -rf build
