"""What the Makefile runs: the cloud on this machine, and commands for it or for a deployed stack.

    __main__.py   `python -m local COMMAND`
    commands/     what a target does, here or with ENV= on a deployed stack
    stack/        PostgreSQL, the AWS emulator, the deploy to it, the watcher of saved files
    stripe/       the stand-in for Stripe
    web/          the one address: front, console, mailbox, docs
    tools/        openapi, schemas, checkov, the gallery of mails, one function run alone
    bootstrap.py, doctor.py   `make setup`, `make doctor`; they run on a bare Python
    settings.py, progress.py, process.py, template.py   shared by all of them

Imports point from commands/ down to the shared files: tests/unit/test_architecture.py. Nothing
here is deployed.
"""

import sys
from pathlib import Path

# Our own package, from where the layer is built.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "layers" / "kyora"))
