"""CloudFormation custom resource at deploy, or by hand: bring the schema up to date.

It also looks at the bucket. Answers the stack when CloudFormation asks; a failure fails the
deploy. `make smoke` asks it for a workspace to try things in. Emits nothing.
"""

from typing import Any

from kyora import cloudformation, config, postgres, smoke, status
from kyora.observability import invoked
from kyora.storage import bucket


def migrate() -> dict[str, Any]:
    # A wrong configuration fails the deploy here, not the first request.
    cloudformation.when_permitted(
        lambda: config.require(
            config.database_url,
            config.database_owner_url,
            config.auth,
            config.storage,
            config.uploads,
            config.public_base_url,
            config.cors_origins,
            config.app_base_url,
            config.bus_name,
            config.email,
            config.resend_webhook_keys,
            config.email_domain,
            config.billing,
            config.stripe_webhook_secrets,
            config.cache,
            config.schedule_minutes,
        )
    )
    cloudformation.when_permitted(bucket.check)
    applied = postgres.migrate()
    status.beat("migrate_database")  # what is scheduled cannot have run since before
    return {"applied": applied}


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    if "smoke" in event:
        return smoke.answer(event["smoke"])
    return cloudformation.resource(event, migrate)
