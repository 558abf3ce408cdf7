# Convenience over the `samokoder` command. `make` alone lists what there is.
ENV ?= staging
export ENV

SAMOKODER := .venv/bin/samokoder
# Words of a command line reach the shell as they were typed, quotes and all.
PART ?=
NAME ?=
SECRET ?=
OUT ?= .samokoder/render/$(ENV)
ARGS ?=
FOLLOW ?=
TAIL ?= 100
IMAGE ?=
KIND ?=

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help bootstrap up preview down destroy-data status logs render test-alert check-image password rotate \
	pulumi lint test test-unit test-live test-deploy bench docs

help: ## List these targets
	@awk 'BEGIN { FS = ":.*## "; print "make TARGET [ENV=staging]\n" } \
		/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

bootstrap: # Python packages; nothing to say and nothing to do when they are there
	@./bootstrap

up: bootstrap ## Bring the environment up, getting whatever is missing; then a table of parts, addresses and health
	@$(SAMOKODER) up

preview: bootstrap ## Show what `up` would change
	@$(SAMOKODER) preview

down: bootstrap ## Remove the containers, keep the data volumes
	@$(SAMOKODER) down

destroy-data: bootstrap ## Remove the environment with all its data; asks for its name
	@$(SAMOKODER) destroy-data

status: bootstrap ## Show how each part is
	@$(SAMOKODER) status

logs: bootstrap ## Show the last TAIL=100 lines of the log of PART=…; FOLLOW=1 goes on
	@$(if $(PART),,$(error Which part? make logs PART=api))$(SAMOKODER) logs $(if $(FOLLOW),--follow) --tail "$(TAIL)" "$(PART)"

render: bootstrap ## Write every configuration file to OUT=… (.samokoder/render/ENV), secrets replaced by their names
	@$(SAMOKODER) render --out "$(OUT)"

test-alert: bootstrap ## Send a test alert through the real chain and tell whether it was delivered
	@$(SAMOKODER) test-alert

check-image: bootstrap ## Check IMAGE=… as KIND=api or KIND=worker against the contract for the team's own images
	@$(if $(and $(IMAGE),$(KIND)),,$(error Which image, as which part? make check-image IMAGE=… KIND=api))$(SAMOKODER) \
		check-image "$(IMAGE)" --kind "$(KIND)"

password: bootstrap ## Show the secret NAME=…; without it the names
	@$(SAMOKODER) password $(if $(NAME),"$(NAME)")

rotate: bootstrap ## Give SECRET=… a new value while everything runs; without it the list. ARGS='--retire-now'
	@$(SAMOKODER) rotate $(ARGS) $(if $(SECRET),"$(SECRET)")

pulumi: bootstrap ## Run Pulumi itself: ARGS='config set --secret samokoder:smtpPassword'
	@$(SAMOKODER) pulumi -- $(ARGS)

lint: bootstrap ## Style and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy .

test: test-unit test-live test-deploy ## All tests

test-unit: bootstrap ## Tests without an engine
	@.venv/bin/pytest -m "not live" -n 2 --dist loadgroup

test-live: bootstrap ## Tests on a real engine: a whole stack of their own, beside any other
	@.venv/bin/pytest -m "live and not deploy" -n 2 --dist loadgroup

test-deploy: bootstrap ## The long load tests, on a real stack of their own
	@.venv/bin/pytest -m deploy

bench: bootstrap ## Measure how long a start takes, beside Docker Compose
	@.venv/bin/python -m bench

docs: bootstrap ## Write the generated parts of the documentation anew
	@.venv/bin/python -m operations.documents
	@uv export --quiet --frozen --only-group reference-app --no-emit-project --no-header --no-annotate | \
		{ echo '# Written by `make docs` from the group "reference-app" of uv.lock.'; cat; } > reference_app/requirements.txt
