# Convenience over the `samokoder` command. `make` alone lists what there is.
# `override` is at what this file has for itself: an outer make hands its own PYTHON or DATA on as if they were typed here.
override TYPED := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(if $(value $(name)),$(name))))

ENV ?= staging
# POSIX shells have a file in ENV that they read at their start: a path is no environment.
ifneq (,$(findstring /,$(ENV)))
ifneq (,$(filter environment,$(origin ENV)))
$(warning ENV is $(ENV), a file of your shell and no environment: staging is meant. Any other: make … ENV=prod)
override ENV := staging
endif
endif
export ENV
# Python looks for the program by the locale: in plain C, a folder with other letters than ASCII ends every command.
ifneq (,$(filter C POSIX,$(LC_ALL)))
export LC_ALL := C.UTF-8
endif

override SAMOKODER := .venv/bin/samokoder

# What each goal takes beside ARGS and ENV; what it does not take is refused, because it would be dropped.
TAKES.up := EMPTY
TAKES.logs := PART TAIL SINCE GREP SEARCH FOLLOW
TAKES.deploy := API WORKER FRONTEND
TAKES.rollback := TO
TAKES.restart := PART
TAKES.render := OUT
TAKES.check-image := IMAGE KIND
TAKES.psql := SQL MONITORING WRITE
TAKES.password := NAME
TAKES.rotate := SECRET
TAKES.backup := KIND
TAKES.restore := TO BACKUP FROM
TAKES.repair := PART
TAKES.import-compose := PROJECT
TAKES.move-state := STATE
TAKES.sbom := OUT
TAKES.newcomer := IMAGE
override NO_ARGS := help bootstrap lint newcomer docs coverage bench
# Variables of the environment that may stand behind `make` too: no goal reads them, but the programs do.
override ANYWHERE := ENV OFFLINE THEN SAMOKODER_% PULUMI_% DOCKER_% AWS_% UV_% %_PROXY %_proxy
override TAKEN := $(sort $(foreach name,$(filter TAKES.%,$(.VARIABLES)),$($(name))) ARGS)

# None but SQL comes from the shell, which may have them for its own ends (WSL exports NAME): only what was typed is meant.
$(foreach name,$(filter-out SQL,$(TAKEN)),$(eval $(name) =))
override SHORT :=
SQL ?=
export SQL
# Make reads `$` in what is typed as a variable of its own. It hands this on as it was typed, in the environment, where
# the shell of a recipe does not take it apart either ("$$GREP"). ARGS is words of a command, with their own quotes.
$(foreach name,$(filter $(TAKEN),$(TYPED)),$(eval override $(name) := $$(value $(name)))$(eval export $(name)))

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help bootstrap up preview down destroy-data status open tunnel logs render doctor smoke test-alert check-image \
	restart deploy rollback psql password rotate backup backups restore repair drill import-compose move-state sbom \
	drift hardening pulumi lint test \
	test-all test-unit test-live test-deploy test-python test-archive test-orders test-orders-faults test-engines \
	newcomer mutations coverage bench docs

# What `make help` lists under each heading.
override EVERY_DAY := up preview status smoke logs restart psql password doctor open tunnel down destroy-data help
override DATA := backup backups restore repair drill import-compose
override DELIVERY := deploy rollback check-image rotate drift hardening test-alert render sbom move-state pulumi
override DEVELOPMENT := test test-all test-unit test-live test-deploy test-orders test-orders-faults test-python \
	test-archive test-engines newcomer lint mutations coverage bench docs

help: ## List these targets
	@awk -v groups="Every day:$(EVERY_DAY);Data:$(DATA);Delivery:$(DELIVERY);Development:$(DEVELOPMENT)" ' \
		BEGIN { FS = ":.*## "; print "make TARGET [ENV=staging]" } \
		/^[a-z-]+:.*## / { says[$$1] = $$2 } \
		END { n = split(groups, group, ";"); for (g = 1; g <= n; g++) { split(group[g], part, ":"); \
			print "\n" part[1]; m = split(part[2], target, " "); \
			for (t = 1; t <= m; t++) { line = sprintf("  %-14s", target[t]); words = split(says[target[t]], word, " "); \
				for (w = 1; w <= words; w++) { \
					if (length(line " " word[w]) > 80) { print line; line = sprintf("%16s", "") } \
					line = line " " word[w] } \
				print line } } }' \
		$(firstword $(MAKEFILE_LIST))

override GOALS := $(or $(MAKECMDGOALS),help)
override takes = $(TAKES.$(1)) $(if $(filter $(NO_ARGS),$(1)),,ARGS)
# An outer make hands on all that was typed to it, as if it was typed here: this make's own words tell what was.
override OWN := $(if $(filter 0,$(MAKELEVEL)),$(TYPED),$(if $(wildcard /proc/self/cmdline),$(shell tr '\n\0' ' \n' \
	</proc/$$PPID/cmdline | sed -n 's/^\([A-Za-z_][^:+?! =]*\)[:+?! ]*=.*/\1/p'),$(filter $(TAKEN),$(TYPED))))
# What is not meant here is told all the same where a goal takes that name: it may be "--yes", or "--dry-run".
override MEANT := $(filter $(OWN) $(TAKEN),$(TYPED))
override WRONG := $(filter-out $(ANYWHERE) $(foreach goal,$(GOALS),$(call takes,$(goal))),$(MEANT))
override OUTER := $(filter-out $(ANYWHERE) $(OWN),$(MEANT))
override LEAVE := $(if $(OUTER),. What was typed to an outer make comes here too; to leave it out there: \
	$$(MAKE) $(GOALS)$(foreach name,$(OUTER), $(name)=))
override WITHOUT := $(if $(filter ARGS,$(TYPED)),$(filter $(NO_ARGS),$(GOALS)))
$(if $(WITHOUT),$(error make $(WITHOUT) takes no ARGS$(LEAVE)))
$(if $(WRONG),$(error make $(GOALS) takes no $(WRONG). It takes: $(sort ENV $(foreach goal,$(GOALS),$(call takes,$(goal))))$(LEAVE)))
$(if $(OUTER),$(error make $(GOALS) takes $(OUTER) from its own line alone$(LEAVE); to hand it \
	on:$(foreach name,$(OUTER), $(name)='$$($(name))')))
$(foreach name,FOLLOW MONITORING WRITE,$(if $(filter-out 0 1,$($(name))),$(error $(name) is 1 or 0)))

bootstrap: # Python packages; nothing to say and nothing to do when they are there
	@./bootstrap

up: bootstrap ## Bring the environment up, getting whatever is missing; then a table of parts, addresses and health
	@$(SAMOKODER) up $(foreach name,$(EMPTY),--empty "$(name)") $(ARGS)

preview: bootstrap ## Show what `up` would change
	@$(SAMOKODER) preview $(ARGS)

down: bootstrap ## Remove the containers, keep the data volumes
	@$(SAMOKODER) down $(ARGS)

destroy-data: bootstrap ## Remove the environment with all its data; asks for its name
	@$(SAMOKODER) destroy-data $(ARGS)

status: bootstrap ## Show how each part is
	@$(SAMOKODER) status $(ARGS)

open: bootstrap ## Print the address of the start page, and open it where there is a desktop
	@$(SAMOKODER) open $(ARGS)

tunnel: bootstrap ## Forward the ports of an engine's host (ssh://…) to the same ports here, until Ctrl-C
	@$(SAMOKODER) tunnel $(ARGS)

logs: bootstrap ## Show the log of PART=…, without it of all parts: TAIL=100, SINCE=2h, GREP=…, FOLLOW=1; SEARCH=words: in all that is collected
	@$(SAMOKODER) logs $(if $(filter 1,$(FOLLOW)),--follow) $(if $(TAIL),--tail "$$TAIL") $(if $(SINCE),--since "$$SINCE") \
		$(if $(GREP),--grep "$$GREP") $(if $(SEARCH),--search "$$SEARCH") $(if $(PART),"$$PART") $(ARGS)

deploy: bootstrap ## Deploy API=… WORKER=… FRONTEND=…: digests, contract, stack file, preview, question, up. ARGS=--write-only
	@$(SAMOKODER) deploy $(if $(API),--api "$$API") $(if $(WORKER),--worker "$$WORKER") \
		$(if $(FRONTEND),--frontend "$$FRONTEND") $(ARGS)

rollback: bootstrap ## Go back to the images before, as the stack file had them, or to those of a commit: TO=…
	@$(SAMOKODER) rollback $(if $(TO),--to "$$TO") $(ARGS)

restart: bootstrap ## Restart PART=…, each replica once the one before is healthy
	@$(if $(PART),,$(error Which part? make restart PART=api))$(SAMOKODER) restart $(ARGS) "$$PART"

override RENDERED = .samokoder/render/$(ENV)
render: bootstrap ## Write every configuration file to OUT=… (.samokoder/render/ENV), secrets replaced by their names
	@$(SAMOKODER) render --out $(if $(OUT),"$$OUT","$(RENDERED)") $(ARGS)

doctor: bootstrap ## Check, before `up`, whether the environment can be brought up; after it: ARGS=--after
	@$(SAMOKODER) doctor $(ARGS)

smoke: bootstrap ## Check that what is up does all that it is for: ARGS='--verbose --wait 120'
	@$(SAMOKODER) smoke $(ARGS)

test-alert: bootstrap ## Send a test alert through the real chain and tell whether it was delivered
	@$(SAMOKODER) test-alert $(ARGS)

check-image: bootstrap ## Check IMAGE=… as KIND=api or KIND=worker against the contract for the team's own images
	@$(if $(and $(IMAGE),$(KIND)),,$(error Which image, as which part? make check-image IMAGE=… KIND=api))$(SAMOKODER) \
		check-image "$$IMAGE" --kind "$$KIND" $(ARGS)

psql: bootstrap ## Ask the database SQL="…", read-only, as the application; WRITE=1; MONITORING=1: as the monitoring role
	@$(SAMOKODER) psql $(if $(filter 1,$(MONITORING)),--monitoring) $(if $(filter 1,$(WRITE)),--write) $(ARGS)

password: bootstrap ## Show the secret NAME=…; without it the names
	@$(SAMOKODER) password $(if $(NAME),"$$NAME") $(ARGS)

rotate: bootstrap ## Give SECRET=… a new value while everything runs; without it the list. ARGS='--retire-now'
	@$(SAMOKODER) rotate $(ARGS) $(if $(SECRET),"$$SECRET")

backup: bootstrap ## Make a backup now: KIND=base, dump, redis or workspace; without it all
	@$(SAMOKODER) backup $(if $(KIND),--kind "$$KIND") $(ARGS)

backups: bootstrap ## List the backups: age, size, state, the moments that one can go back to
	@$(SAMOKODER) backups $(ARGS)

restore: bootstrap ## Restore: TO='2026-11-23 10:05:00+03', BACKUP=latest or FROM=offsite; without one resume an interrupted restore
	@$(SAMOKODER) restore $(if $(TO),--to "$$TO") $(if $(BACKUP),--backup "$$BACKUP") $(if $(FROM),--from "$$FROM") $(ARGS)

repair: bootstrap ## Repair PART=redis (data it cannot read), collations (after another C library) or network (Docker's rules are gone); asks
	@$(if $(PART),,$(error What? make repair PART=redis, collations or network))$(SAMOKODER) repair $(ARGS) "$$PART"

drill: bootstrap ## Restore the newest backup beside everything, look at it and measure
	@$(SAMOKODER) drill $(ARGS)

import-compose: bootstrap ## Copy the data of the stopped compose stack PROJECT=… into the environment; asks for its name
	@$(if $(PROJECT),,$(error Which project? make import-compose PROJECT=samokoder))$(SAMOKODER) import-compose $(ARGS) "$$PROJECT"

move-state: bootstrap ## Move the state of all environments to STATE=s3://…, which a team reaches; the old one is kept
	@$(if $(STATE),,$(error Where to? make move-state STATE='s3://BUCKET?endpoint=…'))$(SAMOKODER) move-state "$$STATE" $(ARGS)

sbom: bootstrap ## Write what is in our own images to OUT=… (.samokoder/sbom), as CycloneDX
	@$(SAMOKODER) sbom --out $(if $(OUT),"$$OUT",.samokoder/sbom) $(ARGS)

drift: bootstrap ## Compare what runs with what is declared; ARGS=--repair makes it so
	@$(SAMOKODER) drift $(ARGS)

hardening: bootstrap ## Check what runs against the CIS Docker Benchmark; exceptions are in hardening.yaml
	@$(SAMOKODER) hardening $(ARGS)

pulumi: bootstrap ## Run Pulumi itself: ARGS='config set --secret samokoder:smtpPassword'
	@$(SAMOKODER) pulumi -- $(ARGS)

lint: bootstrap ## Style, types, rooms, spelling, workflows
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy .
	@said=$$(PYTHONPATH=.:reference_app:backup_image .venv/bin/lint-imports --no-logo --no-cache) || \
		{ printf '%s\n' "$$said"; exit 1; }
	@.venv/bin/codespell
	@.venv/bin/python -m offline actionlint
	@.venv/bin/python -m offline actionlint docs/examples/*.yml
	@.venv/bin/zizmor -qqq --offline --no-progress --persona auditor .github
	@.venv/bin/zizmor -qqq --offline --no-progress --persona auditor docs/examples/*.yml

# tests/tiers.py says which tests on an engine are not long.
test: override SHORT = and not long
test: test-unit test-live test-deploy ## Check what README promises, in minutes

test-all: test-unit test-live test-deploy test-python test-orders test-orders-faults test-archive ## Run all tests, also those that take hours

# Folders in which there is no test of a kind are not even read: each process would spend seconds on that.
test-unit: bootstrap ## Tests without an engine
	@.venv/bin/pytest -m "not live and not archive $(SHORT)" -n 2 --ignore=tests/live --ignore=tests/reference_app $(ARGS)

test-live: bootstrap ## Tests on a real engine: whole stacks of their own, beside any other
	@.venv/bin/pytest -m "live and not deploy and not orders $(SHORT)" -n 2 --ignore=tests/unit --ignore=tests/offline $(ARGS)

test-deploy: bootstrap ## Tests under load, on a real stack of their own, one after the other
	@.venv/bin/pytest -m "deploy $(SHORT)" tests/live $(ARGS)

test-orders: bootstrap ## Try SAMOKODER_SEQUENCES=200 orders of writes, backups, deaths and restores: none loses a write
	@SAMOKODER_SEQUENCES="$${SAMOKODER_SEQUENCES:-200}" .venv/bin/pytest -m "orders and not faults" -n 2 -s $(ORDERS) $(ARGS)

test-orders-faults: bootstrap ## Put back faults that there were, one after the other: `make test-orders` finds each
	@.venv/bin/pytest -m faults -n 2 -s $(ORDERS) $(ARGS)
override ORDERS = tests/backup_image/test_no_write_is_lost.py

# That of the official image: what the tests run on elsewhere is the system's.
override PYTHON = $(shell sed -n 's/.*reference="python:\([0-9]*\.[0-9]*\).*/\1/p' stack/images.py)
test-python: bootstrap ## Test the reference application on the Python of its official image, where uv can give it
	@PATH="$$PATH:$(UV_FOLDER)"; export PATH UV_PROJECT_ENVIRONMENT=.samokoder/python-$(PYTHON); \
		if uv python find --quiet $(PYTHON) >/dev/null 2>&1 || uv python install --quiet $(PYTHON) >/dev/null 2>&1; then \
			uv sync --quiet --frozen --python $(PYTHON) && .samokoder/python-$(PYTHON)/bin/pytest tests/reference_app $(ARGS); \
		else echo "Not available, not tested: uv finds no Python $(PYTHON) here and cannot fetch one"; fi

test-engines: bootstrap ## Test on newer engines than Debian's; as root of a Debian, else it fails
	@OFFLINE=1 SAMOKODER_NEWER_ENGINE=1 .venv/bin/pytest tests/live/test_newer_engine.py tests/live/test_ipv6.py tests/live/test_up_with_ipv6.py $(ARGS)

newcomer: ## Do what a newcomer does, in a container of IMAGE=debian:12 with nothing in it; OFFLINE=1: without a registry
	@.ci/newcomer $(if $(IMAGE),"$$IMAGE",debian:12)

test-archive: bootstrap ## Make every image of Debian packages anew, from today's archive
	@.venv/bin/pytest -m archive tests/offline $(ARGS)

mutations: bootstrap ## Try a list of faults on a copy of the tree: which unit test sees each
	@.venv/bin/python -m tests.mutations $(ARGS)

coverage: bootstrap ## Measure which lines of the product the unit tests run; name the files below 80 %
	@.venv/bin/python -m tests.covered

bench: bootstrap ## Measure times and costs beside Docker Compose, an empty program and their goals
	@.venv/bin/python -m bench

# uv is on PATH, or where ./bootstrap has put it. A file that cannot be written anew stays as it is.
override UV_FOLDER = $(lastword $(wildcard $(or $(SAMOKODER_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/samokoder)/uv/*))
override requirements = { echo '\# Written by `make docs` from the group "$(1)" of uv.lock.'; PATH="$$PATH:$(UV_FOLDER)" \
	uv export --quiet --frozen --only-group $(1) --no-emit-project --no-header --no-annotate; } >$(2).new && \
	mv $(2).new $(2) || { rm -f $(2).new; exit 1; }

docs: bootstrap ## Write the generated parts of the documentation anew
	@.venv/bin/python -m operations.documents.generate
	@$(call requirements,reference-app,reference_app/requirements.txt)
	@$(call requirements,backup-image,backup_image/requirements.txt)
