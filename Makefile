# The verbs of the project: the same ones by hand, by hooks and by CI. `make help` lists them.
PYTHON ?= python3
BIN    := .venv/bin
UV      = $(shell command -v uv || echo $(BIN)/uv)
export PATH := $(CURDIR)/$(BIN):$(PATH)
# a stage is a process of its own, so byte code pays: its start takes a third of the time
unexport PYTHONDONTWRITEBYTECODE
# a company's own authority is in the system's store: uv looks there, as pip does
export UV_SYSTEM_CERTS = 1
# nobody phones home
export PLOOMBER_STATS_ENABLED = false
export MLFLOW_DISABLE_TELEMETRY = true
export DVC_NO_ANALYTICS = true
export MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR = false

.DEFAULT_GOAL := help
.PHONY: help setup pipeline test quick image image-test stack-test starters-test airflow-test chart-test gitlab-test lint fix lint-lock lint-secrets lint-vulnerabilities export dag lock docs serve lab mlflow replay bench clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## make the locked environment in .venv (everything else calls it)

.venv/ready: requirements-dev.txt setup.py settings.ini .ci/hooks $(wildcard .jupyter/*.json .jupyter/labconfig/*.json)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"Python 3.11 or newer is needed, {sys.executable} is {v[0]}.{v[1]}: call make with PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null || $(BIN)/python -m pip install -q --disable-pip-version-check $$(grep -o '^uv==[0-9.]*' requirements-dev.txt)
	@echo "installing the locked environment into .venv (about a minute the first time)"
	@VIRTUAL_ENV="$(CURDIR)/.venv" $(UV) pip sync -q --require-hashes requirements-dev.txt
	@VIRTUAL_ENV="$(CURDIR)/.venv" $(UV) pip install -q --no-deps --no-build-isolation -e . && rm -rf og_project.egg-info build/bdist* build/lib
	@mkdir -p .venv/etc/jupyter && cp -R .jupyter/. .venv/etc/jupyter/
	@.ci/hooks || echo "git's hooks were not installed: .ci/hooks says why"
	@touch $@

pipeline: setup ## run the main job: data, features, model, report, a registered champion
	@$(BIN)/dvc repro
	@$(BIN)/og register --promote-first

QUIET = run() { out=$$("$$@" 2>&1) || { printf '%s\n' "$$out"; exit 1; }; }; run
# what examples and tests put aside in /tmp goes with them; the folders of pytest itself stay, to look into
ASIDE = TMPDIR=$$(mktemp -d); export TMPDIR PYTEST_DEBUG_TEMPROOT=$$(dirname "$$TMPDIR"); trap 'rm -rf "$$TMPDIR"' EXIT;
test: setup ## pass every test (minutes; `make quick` for the quick ones)
	@$(ASIDE) $(QUIET) $(BIN)/nbdev_test --n_workers 2
	@$(ASIDE) OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

CHANGED = git diff --name-only --diff-filter=d HEAD -- nbs; git ls-files -o --exclude-standard -- nbs
quick: setup ## before a commit: lint, the notebooks that changed, the tests that need no server
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy >/dev/null || $(BIN)/mypy
	@$(BIN)/og clean --check && $(BIN)/og dag --check
	@$(ASIDE) for notebook in $$($(CHANGED)); do echo "$$notebook"; $(QUIET) $(BIN)/nbdev_test --path "$$notebook"; done
	@$(ASIDE) OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow and not server"

DOCKER ?= docker
IMAGE  ?= og-project:$(shell git rev-parse --short HEAD)
image: ## build the serving image (Docker with BuildKit)
	@DOCKER_BUILDKIT=1 $(DOCKER) build -q -t $(IMAGE) --build-arg COMMIT=$$(git rev-parse HEAD) --build-arg VERSION=$$(sed -n 's/^version = //p' settings.ini) .

image-test: setup image ## run the serving image in Docker and ask it
	@IMAGE=$(IMAGE) $(BIN)/pytest tests/test_image.py

stack-test: setup ## run the whole stack in Docker, with the faults it has to survive (twenty minutes)
	@DOCKER_BUILDKIT=1 $(DOCKER) build -q -f tests/stack/Dockerfile -t og-project-stand-ins tests
	@STACK=1 $(BIN)/pytest --durations 20 tests/test_stack.py

starters-test: setup ## make a project of every starter, and do in it what its owner would (half an hour on two cores)
	@STARTERS=1 $(BIN)/pytest --durations 10 tests/test_starters.py

airflow-test: setup ## retrain on a real Airflow, in an environment of its own (five minutes)
	@test -x build/airflow/bin/airflow || $(UV) venv -q --python $(BIN)/python build/airflow
	@VIRTUAL_ENV="$(CURDIR)/build/airflow" $(UV) pip sync -q --require-hashes requirements-airflow.txt
	@AIRFLOW="$(CURDIR)/build/airflow/bin" $(BIN)/pytest --durations 10 tests/test_airflow.py

CHARTED = og-project-chart
chart-test: setup ## render the Helm chart, hold it against the schemas of Kubernetes, run its containers in Docker as it says
	@DOCKER_BUILDKIT=1 $(DOCKER) build -q -t $(CHARTED):test .
	@DOCKER_BUILDKIT=1 $(DOCKER) build -q --target pipeline -t $(CHARTED)-pipeline:test .
	@test -x build/chart/bin/python || $(UV) venv -q --python $(BIN)/python build/chart
	@VIRTUAL_ENV="$(CURDIR)/build/chart" $(UV) pip sync -q --require-hashes requirements-chart.txt
	@CHART="$(CURDIR)/build/chart/bin/python" IMAGE=$(CHARTED):test $(BIN)/pytest tests/test_chart.py

gitlab-test: setup ## run the jobs that need no GitLab, with gitlab-ci-local (needs node, npm, rsync, sshd; with GITLAB_DOCKER=1 also in Docker)
	@NODE_OPTIONS=--use-openssl-ca npm install --silent --no-audit --no-fund --prefix build/gitlab-ci-local gitlab-ci-local@4.61.0 >/dev/null
	@GITLAB_CI_LOCAL="$(CURDIR)/build/gitlab-ci-local/node_modules/.bin/gitlab-ci-local" $(BIN)/pytest --durations 10 tests/test_gitlab.py

# nobody runs the benchmarks every day, and test.py needs a stack: mypy notices that what they call has changed
BENCHES = $(QUIET) env MYPYPATH=bench:bench/serving:bench/problem $(BIN)/mypy --explicit-package-bases $(wildcard bench/*.py bench/*/*.py) test.py
# what the notebooks export is made in a copy, and compared
EXPORTED = rm -rf build/export && mkdir -p build/export && cp -R nbs og_project settings.ini pyproject.toml build/export && \
	cd build/export && ../../$(BIN)/nbdev_export && diff -rq -x __pycache__ og_project ../../og_project
lint: setup ## check style, types, notebooks and package in step, graph in step, Dockerfile and GitLab's file; changes nothing
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BENCHES)
	@$(BIN)/og clean --check >/dev/null
	@$(EXPORTED) || { echo "the package is not what the notebooks export: run make fix"; exit 1; }
	@$(BIN)/og dag --check
	@$(QUIET) $(BIN)/og check
	@$(BIN)/python monitoring/dashboards.py --check
	@$(BIN)/python .ci/component.py --check
	@$(BIN)/check-jsonschema -q --builtin-schema vendor.gitlab-ci .gitlab-ci.yml
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/shellcheck .ci/run .ci/hooks setup.sh tests/stack/*.sh
	@$(BIN)/check-jsonschema -q --builtin-schema vendor.compose-spec docker-compose.yml

fix: setup ## mend what a program can: imports, notebooks stored clean, and whatever is made of something else
	@$(BIN)/ruff check --fix .
	@$(BIN)/og clean
	@$(BIN)/nbdev_export
	@$(BIN)/og dag
	@$(BIN)/python monitoring/dashboards.py
	@$(BIN)/python .ci/component.py

lint-lock: setup ## check that requirements*.txt follow settings.ini (asks the package index)
	@mkdir -p build/lock && cp requirements*.txt build/lock/
	@$(MAKE) -s lock OUT=build/lock/
	@for f in requirements*.txt; do cmp -s $$f build/lock/$$f || { echo "$$f is stale: run make lock"; exit 1; }; done

lint-secrets: setup ## look for secrets in what git keeps (`# pragma: allowlist secret` on a line that only looks like one)
	@git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --exclude-files 'requirements.*\.txt' --exclude-lines '"image/png": "'

lint-vulnerabilities: setup ## look up known vulnerabilities of the locked requirements (asks the package index)
	@for f in requirements-serve.txt requirements-pipeline.txt; do $(BIN)/pip-audit -q --require-hashes --disable-pip -r $$f; done

COMPILE = $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate setup.py
lock: ## compile settings.ini into the hashed requirements*.txt
	@$(COMPILE) --extra serve --extra pipeline --extra dev -o $(OUT)requirements-dev.txt
	@$(COMPILE) --extra serve --extra pipeline -c $(OUT)requirements-dev.txt -o $(OUT)requirements-pipeline.txt
	@$(COMPILE) --extra serve -c $(OUT)requirements-dev.txt -o $(OUT)requirements-serve.txt
	@$(COMPILE) -c $(OUT)requirements-dev.txt -o $(OUT)requirements.txt
	@$(subst setup.py,requirements-airflow.in,$(COMPILE)) -o $(OUT)requirements-airflow.txt
	@$(subst setup.py,requirements-chart.in,$(COMPILE)) -o $(OUT)requirements-chart.txt

export: setup ## write the package from the notebooks, and into those that changed what their cells show
	@$(BIN)/nbdev_export
	@$(BIN)/og clean
	@notebooks="$$($(CHANGED))"; test -z "$$notebooks" || $(BIN)/og outputs $$notebooks

dag: setup ## write dvc.yaml and db/schema.sql from pipeline.yaml and the contract
	@$(BIN)/og dag

docs: setup ## make the notebooks and docs/ into a site: build/site/index.html
	@$(BIN)/python docs/site.py

serve: setup ## start the prediction API on 127.0.0.1:8080
	@$(BIN)/og serve

lab: setup ## open JupyterLab on the notebooks
	@$(BIN)/jupyter lab --ServerApp.preferred_dir=nbs

mlflow: setup ## open the tracking page on 127.0.0.1:5000
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000 --workers 1

replay: setup ## send the past through a service of its own, day by day, with retraining: reports/replay.html (ten minutes)
	@$(BIN)/og replay

bench: pipeline ## measure: pipeline overhead, growth, what helped the model, the service beside others, the monitor (docs/benchmarks.md; what needs Docker: bench/image.py, bench/stack.py)
	@for script in pipeline growth ablation; do test ! -e bench/problem/$$script.py || $(BIN)/python bench/problem/$$script.py || exit 1; done
	@$(BIN)/python bench/serving/run.py
	@$(BIN)/python bench/monitor.py

clean: ## remove everything made here: environment, products, cache
	@rm -rf .venv build data models reports mlflow.db* mlartifacts .dvc/cache .dvc/tmp *.egg-info
	@find . -name __pycache__ -o -name '.*.metadata' -not -path './.git/*' | xargs rm -rf
