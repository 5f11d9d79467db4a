# What a person types. Each target says what it does in `make help`; the logic is Python under local/.
.DEFAULT_GOAL := help
.PHONY: help setup doctor run stop test test-later check fmt mutants build deploy invoke debug event bench drill migrate logs emit events redrive outbox schemas emails mails suppressions rebuild-analytics variants sync-plans push-plans reconcile replay why trace time stripe-record upgrade-check status openapi clean

export SAM_CLI_TELEMETRY := 0
# Without compiled modules each of our many processes compiles every module that it imports.
unexport PYTHONDONTWRITEBYTECODE
# What runs here needs some region; a deployed stage's is in samconfig.toml.
ifeq ($(ENV),)
export AWS_DEFAULT_REGION ?= us-east-1
endif
BIN := .venv/bin
PYTHON := $(BIN)/python

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-17s %s\n", $$1, $$2}'

setup: ## install what is needed (every other target does it)
	@python3 local/bootstrap.py

doctor: ## say what this machine has, what is missing and what is broken; installs nothing
	@python3 -m local.doctor

run: setup ## start the stack on this machine: http://127.0.0.1:8000 [PORT=]
	@$(PYTHON) -m local run

stop: setup ## stop the stack that make run started [PORT=]
	@$(PYTHON) -m local stop

test: ## run the tests; T=unit runs a folder, T="unit -k name" or a file in one process (--pdb works)
	@python3 local/bootstrap.py tests
	@$(if $(T),,$(PYTHON) -m local build)
	@KYORA_SEEDS=$(or $(KYORA_SEEDS),4) $(BIN)/pytest --dist loadfile \
		-n $(if $(T),$(if $(word 2,$(T))$(findstring .py,$(T)),0,2),4 --durations 20) \
		$(if $(T),$(if $(wildcard tests/$(T)/.),tests/)$(T))

test-later: ## run the tests with the clock ahead (faketime): DAYS="1 40 400"
	@python3 local/bootstrap.py tests
	@$(PYTHON) -m local.tools.later $(or $(DAYS),1 40 400)

check: ## ruff, mypy, cfn-lint, checkov and the rules for the template
	@python3 local/bootstrap.py check
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sam validate --lint && $(PYTHON) -m local.tools.checkov && $(BIN)/pytest -q -n 2 tests/infra \
		--ignore tests/infra/test_translation.py --ignore tests/infra/test_layers.py

fmt: setup ## format the code and fix what ruff can fix
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

build: setup ## sam build for this machine, if something changed
	@$(PYTHON) -m local build

deploy: setup ## sam build and sam deploy to AWS: ENV=dev, staging or prod
	@$(BIN)/sam build --config-env $(or $(ENV),$(error which ENV? dev, staging or prod))
	@$(BIN)/sam deploy --config-env $(ENV)

invoke: build ## run a built function under Lambda's runtime: F=confirm_upload [E=events/….json]
	@$(PYTHON) -m local.tools.invoke $(or $(F),$(error which function? F=confirm_upload)) $(E)

debug: setup ## run a function from its source under a debugger: F=confirm_upload [E=events/….json] [PORT=5678]
	@env -u PORT $(PYTHON) -m local.tools.debug $(or $(F),$(error which function? F=confirm_upload)) $(E) $(if $(PORT),--port $(PORT))

event: setup ## print a sample event with its token and signature: F=stripe_webhook [E=events/….json]
	@$(PYTHON) -m local.tools.invoke --show $(or $(F),$(error which function? F=stripe_webhook)) $(E)

bench: build ## times of every function, mail and webhooks at work (PEER=1: dj-stripe); PURGE=1, PHOTOS=1, GROWTH=1, LOAD=1 [SECONDS=60] or BESIDE=<commit> alone
ifneq ($(PURGE)$(PHOTOS)$(GROWTH)$(LOAD),)
	@PYTHONPATH=layers/kyora $(PYTHON) -W ignore -m bench.$(if $(LOAD),load $(if $(SECONDS),--seconds $(SECONDS)),$(if $(PHOTOS),photos,$(if $(GROWTH),growth,purge)))
else ifneq ($(BESIDE),)
	@PYTHONPATH=layers/kyora $(PYTHON) -W ignore -m bench.beside $(BESIDE)
else
	@PYTHONPATH=layers/kyora $(PYTHON) -W ignore -m bench
	@PYTHONPATH=layers/kyora $(PYTHON) -W ignore -m bench.email
	@PYTHONPATH=layers/kyora $(PYTHON) -W ignore -m bench.stripe $(if $(PEER),--peer)
endif

drill: build ## break what the stack depends on, one at a time, and count what that costs [ONLY=Stripe,relay]
	@$(if $(ENV),$(error make drill breaks a stack of its own on this machine, and never a deployed one))
	@PYTHONPATH=layers/kyora $(PYTHON) -W ignore -m bench.drill $(if $(ONLY),--only "$(ONLY)")

mutants: setup ## put small faults into what decides and run its tests [MODULE=limits.py] [PART=1/4]
	@PYTHONPATH=layers/kyora $(PYTHON) -W ignore -m bench.mutants \
		$(if $(MODULE),--module $(MODULE)) $(if $(PART),--part $(PART))

migrate: setup ## apply the database migrations [ENV=]
	@$(PYTHON) -m local migrate $(if $(ENV),--env $(ENV))

logs: setup ## follow the local functions' logs [F=confirm_upload] [ID=ast_…] [LEVEL=warning]
	@$(PYTHON) -m local logs $(if $(F),--function $(F)) $(if $(ID),--id $(ID)) \
		$(if $(LEVEL),--level $(LEVEL))

emit: setup ## put a sample event on the bus: EVENT=UserWelcomed [FILE=fields.json] [ENV=]
	@$(PYTHON) -m local emit $(or $(EVENT),$(error which event? EVENT=UserWelcomed)) \
		$(if $(FILE),--file $(FILE)) $(if $(ENV),--env $(ENV))

events: setup ## watch the events on the bus [ENV=]
	@$(PYTHON) -m local events $(if $(ENV),--env $(ENV))

redrive: setup ## send a queue's dead letters back to it: QUEUE=emails, fees, … [ENV=]
	@$(PYTHON) -m local redrive $(or $(QUEUE),$(error which queue? QUEUE=emails)) $(if $(ENV),--env $(ENV))

outbox: setup ## list events that did not reach the bus; DROP=evt_… gives one up [ENV=]
	@$(PYTHON) -m local outbox $(if $(DROP),--drop $(DROP)) $(if $(ENV),--env $(ENV))

schemas: setup ## write events/schemas from the event models (an event may only grow)
	@$(PYTHON) -m local.tools.schemas

emails: setup ## show every e-mail in both languages, light and dark, on one page
	@$(PYTHON) -m local.tools.emails

mails: setup ## list mail [FAILED=1] [TO=address] [EVENT=name]; RESEND=eml_… sends one again, SEEN=1 [ENV=]
	@$(PYTHON) -m local mails $(if $(FAILED),--failed) $(if $(TO),--to $(TO)) $(if $(EVENT),--event $(EVENT)) \
		$(if $(RESEND),--resend $(RESEND)) $(if $(SEEN),--seen) $(if $(ENV),--env $(ENV))

suppressions: setup ## list addresses that get no mail [SHOW=1]; LIFT=address removes one [ENV=]
	@$(PYTHON) -m local suppressions $(if $(SHOW),--show) $(if $(LIFT),--lift $(LIFT)) \
		$(if $(ENV),--env $(ENV))

status: setup ## show whether everything works; exit code 1 if not [ENV=]
	@$(PYTHON) -m local status $(if $(ENV),--env $(ENV))

smoke: setup ## test each integration end to end [MAIL=you@…] [ONLY=upload,plans] [PATIENCE=180] [ENV=]
	@$(PYTHON) -m local smoke $(if $(ENV),--env $(ENV)) $(if $(MAIL),--mail $(MAIL)) \
		$(if $(ONLY),--only "$(ONLY)") $(if $(PATIENCE),--patience $(PATIENCE))

sync-plans: setup ## copy Stripe's plans; CHECK=1 only reports differences, with exit code 2 [ENV=]
	@$(PYTHON) -m local sync-plans $(if $(CHECK),--check) $(if $(ENV),--env $(ENV))

push-plans: setup ## write a catalogue to the Stripe account: FILE=plans.toml [ENV=]
	@$(PYTHON) -m local push-plans $(or $(FILE),$(error which catalogue? FILE=plans.toml)) \
		$(if $(ENV),--env $(ENV))

rebuild-analytics: setup ## recount analytics from the stored events [BUSINESS=biz_…] [ENV=]
	@$(PYTHON) -m local rebuild-analytics $(if $(BUSINESS),--business $(BUSINESS)) $(if $(ENV),--env $(ENV))

variants: setup ## make variants of images again: ASSET=ast_…, FAILED=1 or ALL=1 [ENV=]
	@$(PYTHON) -m local variants $(if $(ASSET),--asset $(ASSET),$(if $(FAILED),--failed,$(if $(ALL),--all,\
		$(error whose? ASSET=ast_…, FAILED=1 or ALL=1)))) $(if $(ENV),--env $(ENV))

reconcile: setup ## compare our billing data with Stripe and repair it [ENV=]
	@$(PYTHON) -m local reconcile $(if $(ENV),--env $(ENV))

replay: setup ## process Stripe events again: EVENT=evt_…, FAILED=1 or SINCE=2026-11-25 [ENV=]
	@$(PYTHON) -m local replay $(if $(EVENT)$(FAILED)$(SINCE),,$(error which events? EVENT=evt_…, FAILED=1 or SINCE=2026-11-25)) \
		$(if $(EVENT),--event $(EVENT)) $(if $(FAILED),--failed) \
		$(if $(SINCE),--since $(SINCE)) $(if $(ENV),--env $(ENV))

stripe-record: setup ## record again what we send to Stripe and read from it
	@$(PYTHON) -m local.stripe.sdk.our_calls

upgrade-check: setup ## report what another Stripe SDK release changes for us: VERSION=17.0.0
	@$(PYTHON) -m local.stripe.sdk.upgrade $(or $(VERSION),$(error which release? VERSION=17.0.0))

bind: setup ## link a Stripe customer to a workspace: CUSTOMER=cus_… (or sub_…) WORKSPACE=ws_… [ENV=]
	@$(PYTHON) -m local bind $(or $(CUSTOMER),$(error which customer? CUSTOMER=cus_…)) \
		$(or $(WORKSPACE),$(error which workspace? WORKSPACE=ws_…)) $(if $(ENV),--env $(ENV))

why: setup ## say why a workspace has the access that it has: WORKSPACE=ws_… (ENV=…)
	@$(PYTHON) -m local why $(or $(WORKSPACE),$(error which workspace? WORKSPACE=ws_…)) \
		$(if $(ENV),--env $(ENV))

# `make time +7d`: Make takes the second word for a target, so it becomes one that does nothing.
ifeq ($(firstword $(MAKECMDGOALS)),time)
MOVE := $(filter +% 2% renewal trial-end grace-end reset,$(wordlist 2,2,$(MAKECMDGOALS)))
MOVE := $(if $(findstring :,$(MOVE)),,$(MOVE))
TO := $(or $(MOVE),$(TO))
ifneq ($(MOVE),)
.PHONY: $(MOVE)
$(MOVE): time ; @:
endif
endif

time: setup ## show the local clock; +7d, renewal, trial-end, grace-end or 2027-01-31 moves it, reset puts it back [WORKSPACE=]
	@$(PYTHON) -m local time $(TO) $(if $(WORKSPACE),--workspace $(WORKSPACE)) $(if $(ENV),--env $(ENV))

trace: setup ## say what became of it: ID=ast_…, evt_…, in_…, sub_…, eml_…, an order, a request, a trace [ENV=]
	@$(PYTHON) -m local trace "$(or $(ID),$(error which id? ID=ast_…))" $(if $(ENV),--env $(ENV))

openapi: setup ## write openapi.json from the code
	@$(PYTHON) -m local.tools.openapi

clean: setup ## delete the local data and every built file
	@$(PYTHON) -m local clean
