"""What worker processes are forked with: each would import and read all of it again."""

import importlib

import boto3
from pydantic import BaseModel

from kyora.postgres import connection

for _name in (
    *("tests.integration.support.workers", "tests.integration.support.ledger", "pg8000.native"),
    *("kyora.assets.content.verify", "kyora.assets.confirm", "kyora.assets.sweep"),
    *("kyora.storage.s3", "boto3.s3.inject", "kyora.bus.events", "kyora.billing.stripe_client"),
):
    importlib.import_module(_name)


def _build(model: type[BaseModel]) -> None:
    """Build the models that wait for their first use."""
    for each in model.__subclasses__():
        each.model_rebuild()
        _build(each)


_build(BaseModel)
connection._TIMEOUT = 30.0  # as in the tests' own process
# boto3 keeps what it reads of S3 for its first client; its keys are the client's own.
boto3.client(
    "s3", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none"
).close()
