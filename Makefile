# Two commands do everything on a fresh machine: `make demo` and `make test`.
# `make test` is for every change, and takes minutes; `make test-slow` is the rest.

PYTHON ?= python3
VENV := .venv
IN_VENV := $(VENV)/bin/python
INSTALL := pip install -q --disable-pip-version-check --require-hashes
NOT_HAD := { echo "The packages could not be had: is there a network, and space? Then make goes on." >&2; exit 1; }

# The tests mostly wait, each for its own engine, service and nginx.
SIDE_BY_SIDE := 4

# Programs and the Debian packages they come in.
ENGINE := dockerd=docker.io containerd=containerd runc=runc busybox=busybox-static ip=iproute2 \
	unshare=util-linux nsenter=util-linux
NGINX := nginx=nginx-core
LUA := /usr/lib/nginx/modules/ngx_http_lua_module.so=libnginx-mod-http-lua \
	/usr/share/doc/lua-cjson/copyright=lua-cjson
GATEWAY := $(NGINX) $(LUA) haproxy=haproxy go=golang-go jq=jq
PACKAGER := dpkg-deb=dpkg /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
PACKAGED := $(PACKAGER) rpmbuild=rpm rpmlint=rpmlint debootstrap=debootstrap cpio=cpio openssl=openssl \
	systemd-analyze=systemd groff=groff-base
BROWSER := chromium=chromium chromedriver=chromium-driver
PICTURES := $(BROWSER) pngquant=pngquant /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc=fonts-noto-cjk
TESTED := $(ENGINE) $(NGINX) $(LUA) jq=jq curl=curl openssl=openssl groff=groff-base zsh=zsh
TESTED_SLOWLY := $(TESTED) $(GATEWAY) $(PACKAGED) $(BROWSER)
SKIPPED := { [ -z "$$CI" ] && echo "The tests that need them are skipped, and say so."; }
LUA_TESTS := $(patsubst %,tests/gateway/test_%.py,choice upstreams watching slow_start versions status bad_input fails_open observe upgrade)
OF_SERVICE := tests/unit tests/lives tests/web tests/integration
SOURCES := container_healthcheck sandbox tests benchmarks packaging wsgi.py gunicorn.conf.py

.DEFAULT_GOAL := help
.PHONY: help demo run test test-slow test-coverage test-lowest test-packages test-seen test-gateways test-debian check format bench pictures build rpm install uninstall lock clean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(VENV)/runtime ## two APPO servers and a gateway, and a container's death, until Ctrl-C
	@tools/need $(ENGINE) $(NGINX) curl=curl
	@tools/need $(LUA) || echo "The demo goes on without what is missing."
	@exec $(IN_VENV) -m sandbox.demo

run: $(VENV)/runtime ## the service on this machine's own Docker engine; FLAGS="-port 4247 …"
	@exec $(IN_VENV) -m container_healthcheck serve $(FLAGS)

test: $(VENV)/dev ## what every change must pass, in minutes; ARGS="tests/unit -k …" for some
	@tools/need $(TESTED) || $(SKIPPED)
ifdef ARGS
	@$(IN_VENV) -m pytest $(ARGS)
else
	@began=$$(date +%s); \
	$(IN_VENV) -m pytest -q -n $(SIDE_BY_SIDE) --dist worksteal -m "not slow" $(OF_SERVICE) tests/gateway && \
	took=$$(($$(date +%s) - began)) && \
	echo "make test took $$((took / 60)) min $$((took % 60)) s. make test-slow adds the coverage, new random lives," && \
	echo "the lowest dependencies, the packages on hosts with systemd, the gateway on other nginxes, the pages and the demo."
endif

test-slow: $(VENV)/dev $(if $(ARGS),,$(VENV)-lowest/ready) ## the rest of the tests, in half an hour; ARGS="tests/packaging" for some
	@tools/need $(TESTED_SLOWLY) || $(SKIPPED)
ifdef ARGS
	@$(IN_VENV) -m pytest --hypothesis-profile=fresh $(ARGS)
else
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-packages test-coverage test-lowest test-seen test-gateways
endif

# The parts of test-slow, two of which run at a time. Random lives have new seeds in the first.
test-coverage:
	@echo "The service, with coverage and new seeds"
	@$(IN_VENV) -m coverage erase
	@$(IN_VENV) -m coverage run --concurrency=thread -m pytest -q -n $(SIDE_BY_SIDE) --dist worksteal \
		--hypothesis-profile=fresh $(OF_SERVICE)
	@$(IN_VENV) -m coverage combine -q
	@$(IN_VENV) -m coverage report
test-lowest:
	@echo "The service with the lowest versions that setup.cfg allows"
	@$(VENV)-lowest/bin/python -m pytest -q -n $(SIDE_BY_SIDE) --dist worksteal $(OF_SERVICE)
# Neither of these two can be shared out: each has something that is made once, a package, a life.
test-packages:
	@echo "The packages"
	@$(IN_VENV) -m pytest -q tests/packaging
test-seen:
	@echo "What people see: a real Prometheus, the pages in a browser, the demo"
	@$(IN_VENV) -m pytest -q tests/monitoring tests/browser tests/demo
test-gateways:
	@echo "The gateway: disturbances and recipes; an nginx older than OpenResty 1.15.8.3; the newest"
	@$(IN_VENV) -m pytest -q -n 2 -m slow tests/gateway
	@$(IN_VENV) -m pytest -q -n 2 --older-nginx $(LUA_TESTS) tests/gateway/test_disturbances.py
	@$(IN_VENV) -m pytest -q -n 2 --nginx-of trixie $(LUA_TESTS)

test-debian: ## the whole on fresh Debians as well: 12, 13 and, in part, sid; as root, for hours
	tools/on-debian bookworm make check test test-slow
	tools/on-debian trixie make check test test-slow
	tools/on-debian sid make test ARGS="-n $(SIDE_BY_SIDE) $(OF_SERVICE)"

check: $(VENV)/dev ## lint, format, types and layers
	@tools/need luacheck=lua-check shellcheck=shellcheck
	@$(IN_VENV) -m ruff check $(SOURCES)
	@$(IN_VENV) -m ruff format --check $(SOURCES)
	@$(IN_VENV) -m mypy
	@$(VENV)/bin/lint-imports --no-logo --no-cache
	@luacheck -q packaging/openresty/lua
	@grep -rlE '^#!/bin/(ba)?sh' .ci tools packaging | xargs shellcheck

format: $(VENV)/dev ## rewrite the code in the project's format
	@$(IN_VENV) -m ruff check --fix $(SOURCES)
	@$(IN_VENV) -m ruff format $(SOURCES)

bench: $(VENV)/dev ## measure speed, memory and load; prints a table
	@tools/need $(TESTED_SLOWLY) wrk=wrk
	@$(IN_VENV) -m benchmarks

pictures: $(VENV)/runtime ## make the documents' pictures of the pages anew, on Debian, as root
	@tools/need $(ENGINE) $(GATEWAY) $(PICTURES)
	@unshare --uts $(IN_VENV) -m sandbox.pictures docs

build: rpm ## the packages of the service and the gateway in dist/, on Debian; some minutes
rpm: $(VENV)/runtime ## the same as build
	@tools/need $(PACKAGER)
	@echo "Building the packages from Debian 12's; this takes some minutes"
	@packaging/rpm/build dist $(VENV)/bin/pip
	@packaging/rpm/build-gateway dist

install: ## the service on this host, as root: by the package where rpm has the host's, else in /opt
	@packaging/install $(if $(filter file,$(origin PYTHON)),,$(PYTHON))

uninstall: ## remove it; changed settings are kept
	@packaging/install --remove

LOCK := $(VENV)/bin/uv pip compile -q --universal --generate-hashes --python-version 3.10 --upgrade
lock: $(VENV)/dev ## renew the pinned versions in requirements/
	@$(LOCK) requirements/runtime.in -o requirements/runtime.txt
	@$(LOCK) requirements/dev.in -o requirements/dev.txt
	@$(LOCK) --resolution lowest-direct requirements/lowest.in -o requirements/lowest.txt

clean: ## remove what make made
	rm -rf $(VENV) $(VENV)-lowest dist build *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/runtime: requirements/runtime.txt
	@command -v $(PYTHON) >/dev/null || [ $(PYTHON) = python3 ] || { echo "$(PYTHON) is missing here" >&2; exit 1; }
	@PYTHON=$(PYTHON) tools/need $(PYTHON)=python3 python3-venv=python3-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) is too old: Python 3.10 or later is needed (make PYTHON=python3.11 …)" >&2; exit 1; }
	@echo "Making the virtual environment $(VENV) and installing requirements/runtime.txt"
	@$(IN_VENV) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || $(NOT_HAD)
	@$(IN_VENV) -m $(INSTALL) -r requirements/runtime.txt || $(NOT_HAD)
	@touch $@

$(VENV)/dev: $(VENV)/runtime requirements/dev.txt
	@echo "Installing requirements/dev.txt into $(VENV)"
	@$(IN_VENV) -m $(INSTALL) -r requirements/dev.txt || $(NOT_HAD)
	@touch $@

$(VENV)-lowest/ready: $(VENV)/runtime requirements/lowest.txt
	@echo "Making the virtual environment $(VENV)-lowest and installing requirements/lowest.txt"
	@$(IN_VENV) -m venv --clear $(VENV)-lowest || $(NOT_HAD)
	@$(VENV)-lowest/bin/python -m $(INSTALL) -r requirements/lowest.txt || $(NOT_HAD)
	@touch $@
