"""What MiniStack 1.5 does not understand of the template: changed before a deploy, fixed after it.

`template.yaml` stays as AWS gets it. One more gap, the API's routes, is in `routes.py`.
"""

import json
from collections.abc import Mapping
from typing import Any

from local import template
from local.settings import Settings
from local.stack import emulator


def understood(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a template without what the emulator refuses to deploy, or misunderstands.

    Its CloudFormation requires MetricName of every alarm, so one on an expression watches the first
    metric of that expression instead: no alarm ever fires there. Its IAM does not know the key
    events:source: under a condition on it no event would be published.
    """
    resources = dict(found["Resources"])
    for name, resource in resources.items():
        properties = dict(resource.get("Properties", {}))
        if resource["Type"] == "AWS::CloudWatch::Alarm" and "Metrics" in properties:
            metrics = properties.pop("Metrics")
            first = next(m["MetricStat"] for m in metrics if "MetricStat" in m)
            properties |= first["Metric"] | {"Period": first["Period"], "Statistic": first["Stat"]}
        if policies := properties.get("Policies"):
            properties["Policies"] = [_without_sources(policy) for policy in policies]
        if properties:
            resources[name] = {**resource, "Properties": properties}
    return {**found, "Resources": resources}


def _without_sources(policy: Any) -> Any:
    """Return a function's policy, if it has statements, without conditions on events:source."""
    if not isinstance(policy, dict) or "Statement" not in policy:
        return policy
    statements = [dict(statement) for statement in policy["Statement"]]
    for statement in statements:
        if "events:source" in json.dumps(statement.get("Condition", {})):
            del statement["Condition"]
    return {**policy, "Statement": statements}


def fill(settings: Settings, physical: dict[str, str]) -> None:
    """Set them all up after a deploy; doing it again changes nothing."""
    if bucket := physical.get("Bucket"):
        # Its policy refuses what comes without TLS, and asks for S3's own condition keys
        # (s3:signatureversion, s3:if-none-match) that MiniStack does not know: no upload works.
        emulator.client("s3", settings.gateway_port).delete_bucket_policy(Bucket=bucket)
    client = emulator.client("lambda", settings.gateway_port)
    for mapping in client.list_event_source_mappings()["EventSourceMappings"]:
        limit = mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
        if limit is not None:
            # CloudFormation turns a Number parameter into a number; here it stays text (boto3 does
            # not show it), and the poller that compares it stops.
            client.update_event_source_mapping(
                UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": int(limit)}
            )
    _archive(settings, physical["Bus"])


def _archive(settings: Settings, bus: str) -> None:
    # Its CloudFormation knows no AWS::Events::Archive and refuses a template that has one: the
    # stack is deployed with EventArchiveDays=0, and the archive made here as the template says.
    client = emulator.client("events", settings.gateway_port)
    declared = template.read()["Resources"]["Archive"]["Properties"]
    wanted = {"ArchiveName": bus, "EventPattern": json.dumps(declared["EventPattern"])}
    try:
        client.update_archive(**wanted)
    except client.exceptions.ResourceNotFoundException:
        arn = client.describe_event_bus(Name=bus)["Arn"]
        client.create_archive(**wanted, EventSourceArn=arn, RetentionDays=1)
