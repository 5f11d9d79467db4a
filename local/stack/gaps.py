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
    """Return a template without what the emulator refuses to deploy.

    Its CloudFormation requires MetricName of every alarm, so one on an expression watches the first
    metric of that expression instead: no alarm ever fires there.
    """
    resources = dict(found["Resources"])
    for name, resource in resources.items():
        properties = dict(resource.get("Properties", {}))
        if resource["Type"] == "AWS::CloudWatch::Alarm" and "Metrics" in properties:
            metrics = properties.pop("Metrics")
            first = next(m["MetricStat"] for m in metrics if "MetricStat" in m)
            properties |= first["Metric"] | {"Period": first["Period"], "Statistic": first["Stat"]}
            resources[name] = {**resource, "Properties": properties}
    return {**found, "Resources": resources}


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
    _event_sources(settings)


def _event_sources(settings: Settings) -> None:
    """Remove the condition on events:source from the roles: MiniStack does not know the key.

    With it no event would be published.
    """
    client = emulator.client("iam", settings.gateway_port)
    for page in client.get_paginator("list_roles").paginate():
        for role in (found["RoleName"] for found in page["Roles"]):
            for name in client.list_role_policies(RoleName=role)["PolicyNames"]:
                policy = client.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
                asking = [s for s in policy["Statement"] if "events:source" in json.dumps(s)]
                for statement in asking:
                    del statement["Condition"]
                if asking:
                    document = json.dumps(policy)
                    client.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)


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
