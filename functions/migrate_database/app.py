"""CloudFormation custom resource at deploy, or by hand: bring the schema up to date.

Answers the stack when CloudFormation asks; a failure fails the deploy. Emits nothing.
"""

from typing import Any

from kyora import cloudformation, config, postgres, status
from kyora.observability import begin


def migrate() -> dict[str, Any]:
    # A wrong configuration fails the deploy here, not the first request.
    config.settings(
        "database",
        "database_owner",
        "auth",
        "storage",
        "bus",
        "email",
        "email_webhook",
        "billing",
        "billing_webhook",
        "cache",
    )
    applied = postgres.migrate()
    status.beat("migrate_database")  # what is scheduled cannot have run since before
    return {"applied": applied}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    begin(context.aws_request_id)
    return cloudformation.resource(event, migrate)
