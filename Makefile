# The few verbs of this project. `make` alone lists them.
#
#   make run [REPLICAS=n] [PORT=p] [MODEL=name]

PYTHON   ?= python3
REPLICAS ?= 1
PORT     ?= 8000
MODEL    ?= efficientnet-lite0
KEYS     ?= keys
TARGET   ?= own
SECONDS  ?= 60
REQUESTS ?= 5000
URL      ?= http://127.0.0.1:$(PORT)
SHAPE    ?= ramp
USERS    ?= 20
DURATION ?= 60
P95_MS   ?=
FAILURES ?= 0.01
PHOTOS   ?=
MIN      ?= 1
MAX      ?= 4
PROJECT  ?= sightline
DOWN_AFTER ?= 60
PEERS    ?=
SKIP     ?=
VARY     ?= replicas decoders batch
ENGINES  ?= model accelerator nothing
ROUNDS   ?= 3
WINDOW   ?= 5
VERSION  ?=
IMAGES   ?= web broker model model-gpu load

VENV   := .venv
BIN    := $(VENV)/bin
RELEASE := .venv-release
PARTS  := wire imaging telemetry web model client

# Every file is compiled under the newest versions that the tests ran with (-c), so that a
# container gets what was tested. Our own parts are not on the package index.
OURS   := sightline-wire sightline-imaging sightline-telemetry sightline-web sightline-model sightline-client
LOCK   := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
          --custom-compile-command "make lock" $(OURS:%=--no-emit-package %)
ALL    := services/web/pyproject.toml services/model/pyproject.toml services/client/pyproject.toml --extra litert

.DEFAULT_GOAL := help
.PHONY: help run test check fuzz chaos load bench bench-scale tune autoscale keys lock audit release clean
.DELETE_ON_ERROR:

help:  ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(VENV)/.run  ## serve on this machine: broker, replicas, web [REPLICAS=1 PORT=8000 MODEL=name]
	@exec $(BIN)/python -m modelserver serve --replicas "$(REPLICAS)" --port "$(PORT)" --model "$(MODEL)"

test: $(VENV)/.dev  ## run the tests that need no container, browser or TensorFlow, and are no drill
	$(BIN)/python -m pytest -m "not containers and not browser and not tensorflow and not drill" \
	  --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.dev  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/.fuzz  ## hostile bytes at every parser, guided by coverage [SECONDS=60 for each]
	@$(BIN)/python -m tests.fuzz "$(SECONDS)"

chaos: $(VENV)/.run  ## break parts under load and count every request [TARGET=own SECONDS=60 REQUESTS=5000]
	@$(BIN)/python -m loadtest.chaos --target "$(TARGET)" --seconds "$(SECONDS)" --requests "$(REQUESTS)"

load: $(VENV)/.dev  ## users for a running service [SHAPE=ramp|spike|soak USERS=20 DURATION=60 P95_MS=1000 FAILURES=0.01 URL=http://...]
	@mkdir -p bench-output
	@$(BIN)/locust --locustfile loadtest/locustfile.py --headless --only-summary --host "$(URL)" \
	  --shape "$(SHAPE)" --users "$(USERS)" --run-time "$(DURATION)" --html bench-output/load.html \
	  --csv bench-output/load --csv-full-history \
	  --max-p95-ms "$(or $(P95_MS),1000)" --max-failures "$(FAILURES)" $(if $(PHOTOS),--pictures "$(PHOTOS)"); \
	status=$$?; $(BIN)/python -m loadtest.report bench-output/load && exit $$status

# What is measured beside Sightline and needs more than it does has an environment of its own.
OLD    := $(filter-out $(SKIP),tutorial monolith)
OTHERS := $(if $(OLD),.venv-bench-tutorial/.done) $(PEERS:%=.venv-bench-%/.done)
ifneq ($(filter-out mosec,$(PEERS)),)
OTHERS :=                                       # the program says that there is no such peer
endif

bench: $(VENV)/.run $(OTHERS)  ## measure Sightline beside others [PEERS=mosec SKIP="tutorial monolith" ENGINES="model accelerator nothing" ROUNDS=3 WINDOW=5 PHOTOS=dir]
	@$(BIN)/python -m loadtest.bench --photos "$(PHOTOS)" --peers "$(PEERS)" --skip "$(SKIP)" \
	  --engines "$(ENGINES)" --rounds "$(ROUNDS)" --window "$(WINDOW)"

bench-scale: $(VENV)/.run  ## how the broker's cost grows with load and replicas [ROUNDS=3 WINDOW=5]
	@$(BIN)/python -m loadtest.bench.scale --rounds "$(ROUNDS)" --window "$(WINDOW)"

tune: $(VENV)/.run  ## find the best settings for this machine, 20 minutes or less [VARY="replicas decoders batch" P95_MS=n ROUNDS=3 WINDOW=5 MODEL=name PHOTOS=dir]
	@$(BIN)/python -m loadtest.tune --p95-ms "$(P95_MS)" --rounds "$(ROUNDS)" --window "$(WINDOW)" \
	  --model "$(MODEL)" --photos "$(PHOTOS)" --vary $(VARY)

autoscale: $(VENV)/.autoscale  ## have a compose project run as many replicas as the load takes [PROJECT=sightline MIN=1 MAX=4 DOWN_AFTER=60 URL=http://...]
	@exec $(BIN)/python -m deploy.autoscale --project "$(PROJECT)" --min "$(MIN)" --max "$(MAX)" \
	  --down-after "$(DOWN_AFTER)" --url "$(URL)"

keys: $(VENV)/.run  ## make the key files that let only web and replicas talk to the broker
	$(BIN)/python -m modelserver keys "$(KEYS)"

lock: $(VENV)/.dev  ## compile the pinned requirement files from the pyproject files
	$(LOCK) requirements-dev.in $(ALL) -o requirements-dev.txt
	$(LOCK) requirements-fuzz.in -c requirements-dev.txt -o requirements-fuzz.txt
	$(LOCK) requirements-release.in -c requirements-dev.txt -o requirements-release.txt
	$(LOCK) $(ALL) -c requirements-dev.txt -o requirements.txt
	$(LOCK) deploy/autoscale/requirements.in -c requirements-dev.txt -o deploy/autoscale/requirements.txt
	$(LOCK) loadtest/requirements.in -c requirements-dev.txt -o loadtest/requirements.txt
	$(LOCK) loadtest/bench/requirements-mosec.in $(ALL) -c requirements-dev.txt -o loadtest/bench/requirements-mosec.txt
	$(LOCK) services/web/pyproject.toml -c requirements-dev.txt -o services/web/requirements.txt
	$(LOCK) services/model/pyproject.toml -c requirements-dev.txt -o services/model/requirements-broker.txt
	$(LOCK) services/model/pyproject.toml --extra litert -c requirements-dev.txt -o services/model/requirements-cpu.txt
	$(LOCK) services/model/pyproject.toml --extra litert --extra build -c requirements-dev.txt -o services/model/requirements-build.txt
	$(LOCK) services/model/pyproject.toml --extra gpu -c requirements-dev.txt -o services/model/requirements-gpu.txt
	$(LOCK) services/model/pyproject.toml --extra tensorflow -c services/model/requirements-build.txt -o services/model/requirements-tensorflow.txt

audit: $(RELEASE)/.done  ## ask whether what images install has known vulnerabilities
	@$(RELEASE)/bin/python -m deploy.release audit

release: $(VENV)/.dev $(RELEASE)/.done  ## check, build images, list what is in them, tag [VERSION=1.2.3 IMAGES="web broker model"]
	@$(RELEASE)/bin/python -m deploy.release release "$(VERSION)" --images $(IMAGES) --python "$(BIN)/python"

clean:  ## remove what was installed here
	rm -rf $(VENV) $(RELEASE) .venv-bench-*

# The parts run from their folders: a .pth file does what an editable install does, and a script of
# one line what its entry point does. Neither needs a build tool from the network.
$(VENV)/.run: requirements.txt Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 15) and f"Sightline needs Python 3.11 to 3.14; {sys.executable} is %d.%d. Try: make PYTHON=python3.12 ..." % v)'
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@printf '$(CURDIR)/services/%s\n' $(PARTS) > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sightline.pth"
	@printf '#!/bin/sh\nexec "%s/python" -m sightline "$$@"\n' "$(CURDIR)/$(BIN)" > $(BIN)/sightline
	@chmod +x $(BIN)/sightline
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

$(VENV)/.autoscale: deploy/autoscale/requirements.txt $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/autoscale/requirements.txt
	@touch $@

$(VENV)/.fuzz: requirements-fuzz.txt $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.txt
	@touch $@

$(RELEASE)/.done: requirements-release.txt
.venv-bench-mosec/.done: loadtest/bench/requirements-mosec.txt
.venv-bench-tutorial/.done: services/model/requirements-build.txt services/web/requirements.txt
.venv-%/.done:
	@echo "Installing into $(@D) ..."
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes $(^:%=-r %)
	@touch $@
