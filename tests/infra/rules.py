"""Our rules on the template. Each returns what breaks it; the answer we want is empty."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

type Stack = dict[str, Any]
type Rule = Callable[[Stack], list[str]]

MANAGED = {  # SAM adds them; X-Ray and network interfaces know no narrower resource
    "AWSLambdaBasicExecutionRole",
    "AWSXrayWriteOnlyAccess",
    "AWSLambdaVPCAccessExecutionRole",
    "AWSCodeDeployRoleForLambda",  # CodeDeploy's own, with GradualDeploys
}
TWO_WEEKS = 1_209_600


def of(stack: Stack, kind: str) -> dict[str, dict[str, Any]]:
    """The properties of every resource of a type."""
    return {n: r["Properties"] for n, r in stack["Resources"].items() if r["Type"] == kind}


def named(value: Any) -> str:
    """The logical id that a Ref, GetAtt or Sub of one resource names."""
    if not isinstance(value, dict) or len(value) != 1:
        return ""
    [(function, argument)] = value.items()
    if function == "Ref":
        return str(argument)
    if function == "Fn::GetAtt":
        return str(argument[0] if isinstance(argument, list) else argument.split(".")[0])
    return ""


def mentions(value: Any, name: str) -> bool:
    """Whether a Ref, GetAtt or Sub to a name is anywhere inside."""
    return name in mentioned(value)


def mentioned(value: Any) -> set[str]:
    """The names of each Ref, GetAtt and Sub inside."""
    if isinstance(value, dict):
        return {named(value)}.union(*map(mentioned, value.values()))
    if isinstance(value, list):
        return set[str]().union(*map(mentioned, value))
    return set(re.findall(r"\$\{([^.}]+)[.}]", value)) if isinstance(value, str) else set()


def statements(stack: Stack) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of an inline policy, with its role."""
    for role, properties in of(stack, "AWS::IAM::Role").items():
        for policy in properties.get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                yield role, statement


def functions(stack: Stack) -> dict[str, dict[str, Any]]:
    return of(stack, "AWS::Lambda::Function")


def function_of(stack: Stack, target: Any) -> str:
    """The function behind a reference to it or to its alias."""
    name = named(target)
    alias = of(stack, "AWS::Lambda::Alias").get(name)
    return named(alias["FunctionName"]) if alias else name


def invoked_asynchronously(stack: Stack) -> dict[str, str]:
    """Function → what invokes it and does not wait: schedules, rules, CloudFormation."""
    found = {}
    for name, schedule in of(stack, "AWS::Scheduler::Schedule").items():
        found[function_of(stack, schedule["Target"]["Arn"])] = name
    for name, rule in of(stack, "AWS::Events::Rule").items():
        for target in rule["Targets"]:
            if (function := function_of(stack, target["Arn"])) in functions(stack):
                found[function] = name
    for name, resource in stack["Resources"].items():
        if resource["Type"].startswith("Custom::"):
            found[function_of(stack, resource["Properties"]["ServiceToken"])] = name
    return found


def dead_letter_queues(stack: Stack) -> set[str]:
    found = set()
    for queue in of(stack, "AWS::SQS::Queue").values():
        found |= {named(queue.get("RedrivePolicy", {}).get("deadLetterTargetArn"))}
    for schedule in of(stack, "AWS::Scheduler::Schedule").values():
        found |= {named(schedule["Target"].get("DeadLetterConfig", {}).get("Arn"))}
    for rule in of(stack, "AWS::Events::Rule").values():
        found |= {named(t.get("DeadLetterConfig", {}).get("Arn")) for t in rule["Targets"]}
    for config in of(stack, "AWS::Lambda::EventInvokeConfig").values():
        found |= {
            named(config.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"))
        }
    return found - {""}


# ---- functions


def every_function_has_a_log_group_with_retention(stack: Stack) -> list[str]:
    groups = of(stack, "AWS::Logs::LogGroup")
    bare = [name for name, group in groups.items() if not group.get("RetentionInDays")]
    used = [named(p.get("LoggingConfig", {}).get("LogGroup")) for p in functions(stack).values()]
    lost = [n for n, g in zip(functions(stack), used, strict=True) if g not in groups]
    return bare + lost + [group for group in set(used) if used.count(group) > 1]


def every_function_has_a_role_of_its_own(stack: Stack) -> list[str]:
    roles = {name: named(p["Role"]) for name, p in functions(stack).items()}
    return [n for n, role in roles.items() if list(roles.values()).count(role) > 1 or not role]


def every_function_is_traced(stack: Stack) -> list[str]:
    return [
        name
        for name, p in functions(stack).items()
        if p.get("TracingConfig", {}).get("Mode") != "Active"
    ]


def every_function_runs_what_the_parameters_say(stack: Stack) -> list[str]:
    return [
        name
        for name, p in functions(stack).items()
        # Decoding an image takes what it takes.
        if p["MemorySize"] != (2048 if name == "MakeVariantsFunction" else {"Ref": "MemorySize"})
        or p["Architectures"] != [{"Ref": "Architecture"}]
        or p["Runtime"] != "python3.13"
        or p["Handler"] != "app.handler"
    ]


def no_concurrency_is_reserved_unless_a_parameter_says_so(stack: Stack) -> list[str]:
    # A new account has none to give: a hard-coded figure makes the first deploy fail.
    return [
        name
        for name, p in functions(stack).items()
        if (reserved := p.get("ReservedConcurrentExecutions"))
        and (reserved.get("Fn::If") or [""])[-1] != {"Ref": "AWS::NoValue"}
    ]


def every_called_function_is_a_published_version(stack: Stack) -> list[str]:
    """Snapshots exist of versions only; migrate_database runs before there is one."""
    aliases = {named(p["FunctionName"]) for p in of(stack, "AWS::Lambda::Alias").values()}
    waiting = {named(stack["Resources"]["DatabaseMigration"]["Properties"]["ServiceToken"])}
    return [
        name
        for name, p in functions(stack).items()
        if name not in waiting
        and (name not in aliases or p.get("SnapStart") != {"ApplyOn": {"Ref": "SnapStart"}})
    ]


def every_function_waits_for_the_migration(stack: Stack) -> list[str]:
    migrating = named(stack["Resources"]["DatabaseMigration"]["Properties"]["ServiceToken"])
    return [
        name
        for name, properties in functions(stack).items()
        if name != migrating and not mentions(properties, "DatabaseMigration")
    ]


def a_parameter_that_reaches_a_function_publishes_a_version(stack: Stack) -> list[str]:
    """SAM does not see a changed parameter: the migration's digest has to hold every one."""
    digest = stack["Resources"]["DatabaseMigration"]["Properties"]["Configuration"]
    used = {
        name
        for name in stack["Parameters"]
        for p in functions(stack).values()
        if mentions({k: v for k, v in p.items() if k != "FunctionName"}, name)
        and not name.endswith("ReservedConcurrency")  # not of a version
    }
    versions = of(stack, "AWS::Lambda::Version").items()
    stuck = [n for n, p in versions if p.get("Description") != {"Ref": "DatabaseMigration"}]
    return sorted(name for name in used if not mentions(digest, name)) + stuck


# Lambda publishes no version in which only these are new. (Source: Lambda Developer Guide, "Manage
# Lambda function versions".) The same code at another place in S3 is a case that no one can see
# here: change a stack's bucket or prefix for packages together with any line of the layer.
UNCOUNTED = ("ReservedConcurrentExecutions", "RecursiveLoop", "Tags")
COUNTED = {
    *("Architectures", "Code", "Description", "Environment", "EphemeralStorage", "FunctionName"),
    *("Handler", "Layers", "LoggingConfig", "MemorySize", "Role", "Runtime", "SnapStart"),
    *("Timeout", "TracingConfig", "VpcConfig"),
}


def revision(stack: Stack) -> str:
    """What the migration's configuration has to hold for what a version does not count."""
    held = {n: {k: p[k] for k in UNCOUNTED if k in p} for n, p in functions(stack).items()}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:12]


def a_property_that_no_version_counts_comes_with_one_that_does(stack: Stack) -> list[str]:
    digest = stack["Resources"]["DatabaseMigration"]["Properties"]["Configuration"]
    unknown = {k for p in functions(stack).values() for k in p} - COUNTED - {*UNCOUNTED}
    stale = [] if revision(stack) in digest else [f"Configuration: write {revision(stack)}"]
    return sorted(unknown) + stale


# ---- permissions


def no_function_may_make_a_log_group(stack: Stack) -> list[str]:
    """One that runs while its stack is deleted would leave a group that the next create meets."""
    deny = {"Effect": "Deny", "Action": "logs:CreateLogGroup", "Resource": "*"}
    roles = {name for name, statement in statements(stack) if statement == deny}
    return [name for name, p in functions(stack).items() if named(p["Role"]) not in roles]


def every_role_that_reads_a_secret_may_use_the_secrets_key(stack: Stack) -> list[str]:
    [policy] = of(stack, "AWS::IAM::Policy").values()
    roles = [role.get("Fn::If", [None, role])[1] for role in policy["Roles"]]
    allowed = {named(role) for role in roles}
    reads = {r for r, s in statements(stack) if "secretsmanager:GetSecretValue" in s["Action"]}
    waits = mentions(stack["Resources"]["DatabaseMigration"], "SecretsKeyPolicy")
    return sorted(allowed ^ reads) + ([] if waits else ["DatabaseMigration"])


def every_publisher_is_held_to_its_sources(stack: Stack) -> list[str]:
    return [
        role
        for role, statement in statements(stack)
        if "events:PutEvents" in statement["Action"]
        and not statement.get("Condition", {}).get("StringEquals", {}).get("events:source")
    ]


# Objects below a prefix of ours are as exact as S3 can be. GuardDuty names its rule itself.
_WIDEST = re.compile(
    r"(/(incoming|assets|variants|public)/\*"
    r"|:rule/DO-NOT-DELETE-AmazonGuardDutyMalwareProtectionS3\*)$"
)


def no_policy_has_a_wildcard(stack: Stack) -> list[str]:
    found = []
    for role, statement in statements(stack):
        if statement["Effect"] != "Allow":
            continue
        actions, resources = statement["Action"], statement["Resource"]
        actions = [actions] if isinstance(actions, str) else actions
        resources = resources if isinstance(resources, list) else [resources]
        texts = [
            _text(r["Fn::Sub"]) if "Fn::Sub" in r else "" for r in resources if isinstance(r, dict)
        ]
        texts += [r for r in resources if isinstance(r, str)]
        wide = [t for t in texts if "*" in _WIDEST.sub("", t)]
        found += [f"{role}: {item}" for item in wide + [a for a in actions if "*" in a]]
    return found


def _text(sub: Any) -> str:
    return str(sub[0] if isinstance(sub, list) else sub)


def no_managed_policy_but_the_runtimes_own(stack: Stack) -> list[str]:
    return [
        f"{role}: {arn}"
        for role, p in of(stack, "AWS::IAM::Role").items()
        for arn in p.get("ManagedPolicyArns", [])
        if str(arn).rsplit("/", 1)[-1] not in MANAGED
    ]


# ---- asynchronous paths


def every_schedule_retries_and_has_a_dead_letter_queue(stack: Stack) -> list[str]:
    queues = of(stack, "AWS::SQS::Queue")
    found = []
    for name, schedule in of(stack, "AWS::Scheduler::Schedule").items():
        target = schedule["Target"]
        queue = named(target.get("DeadLetterConfig", {}).get("Arn"))
        role = named(target["RoleArn"])
        allowed = any(
            r == role and s["Action"] == "sqs:SendMessage" and named(s["Resource"]) == queue
            for r, s in _single(stack)
        )
        if (
            queue not in queues
            or not allowed
            or "MaximumRetryAttempts" not in target["RetryPolicy"]
        ):
            found.append(name)
    return found


def _single(stack: Stack) -> Iterator[tuple[str, dict[str, Any]]]:
    """Statements, one for each action and resource."""
    for role, statement in statements(stack):
        actions, resources = statement["Action"], statement["Resource"]
        for action in actions if isinstance(actions, list) else [actions]:
            for resource in resources if isinstance(resources, list) else [resources]:
                yield role, {**statement, "Action": action, "Resource": resource}


def every_function_nobody_waits_for_has_a_failure_destination(stack: Stack) -> list[str]:
    queues = of(stack, "AWS::SQS::Queue")
    aliased = {named(p["FunctionName"]) for p in of(stack, "AWS::Lambda::Alias").values()}
    kept = set()
    for config in of(stack, "AWS::Lambda::EventInvokeConfig").values():
        function = named(config["FunctionName"])
        qualifier = "live" if function in aliased else "$LATEST"
        queue = named(config.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"))
        if queue in queues and config["Qualifier"] == qualifier:
            kept.add(function)
    return [name for name in invoked_asynchronously(stack) if name not in kept]


def every_rule_target_has_a_dead_letter_queue(stack: Stack) -> list[str]:
    queues = of(stack, "AWS::SQS::Queue")
    return [
        f"{name}/{target['Id']}"
        for name, rule in of(stack, "AWS::Events::Rule").items()
        for target in rule["Targets"]
        if named(target.get("DeadLetterConfig", {}).get("Arn")) not in queues
        or "MaximumEventAgeInSeconds" not in target.get("RetryPolicy", {})
    ]


def every_queue_of_a_rule_lets_the_rule_in(stack: Stack) -> list[str]:
    """Without the queue's own policy EventBridge drops events, silently."""
    found = []
    for name, rule in of(stack, "AWS::Events::Rule").items():
        for target in rule["Targets"]:
            wanted = {named(target["Arn"]), named(target.get("DeadLetterConfig", {}).get("Arn"))}
            found += [
                queue
                for queue in wanted & of(stack, "AWS::SQS::Queue").keys()
                if not any(_admits(policy, queue, name) for policy in _queue_policies(stack))
            ]
    return found


def _queue_policies(stack: Stack) -> list[dict[str, Any]]:
    return list(of(stack, "AWS::SQS::QueuePolicy").values())


def _admits(policy: dict[str, Any], queue: str, rule: str) -> bool:
    return any(named(item) == queue for item in policy["Queues"]) and any(
        statement["Effect"] == "Allow"
        and statement["Principal"] == {"Service": "events.amazonaws.com"}
        and statement["Action"] == "sqs:SendMessage"
        and mentions(statement["Resource"], queue)
        and named(statement["Condition"]["ArnEquals"]["aws:SourceArn"]) == rule
        for statement in policy["PolicyDocument"]["Statement"]
    )


def no_alarm_is_there_before_what_it_waits_for(stack: Stack) -> list[str]:
    """An alarm for which silence is a fault waits for the schedule that breaks it."""
    schedules = of(stack, "AWS::Scheduler::Schedule")
    return [
        name
        for name, alarm in of(stack, "AWS::CloudWatch::Alarm").items()
        if alarm["TreatMissingData"] == "breaching"
        and stack["Resources"][name].get("DependsOn") not in schedules
    ]


def only_a_source_that_can_bring_something_is_polled(stack: Stack) -> list[str]:
    """A queue whose rule is conditional has a mapping under the same condition."""
    conditional = {
        named(target["Arn"]): stack["Resources"][name].get("Condition")
        for name, rule in of(stack, "AWS::Events::Rule").items()
        for target in rule["Targets"]
    }
    return [
        name
        for name, mapping in of(stack, "AWS::Lambda::EventSourceMapping").items()
        if stack["Resources"][name].get("Condition")
        != conditional.get(named(mapping["EventSourceArn"]))
    ]


def who_copies_a_message_to_its_own_queue_may_loop(stack: Stack) -> list[str]:
    """Lambda stops what it takes for an endless loop: a function that feeds its own queue."""
    queues = {
        function_of(stack, m["FunctionName"]): named(m["EventSourceArn"])
        for m in of(stack, "AWS::Lambda::EventSourceMapping").values()
    }
    feeds = {
        name
        for name, p in functions(stack).items()
        for role, s in _single(stack)
        if role == named(p["Role"])
        and s["Action"] == "sqs:SendMessage"
        and named(s["Resource"]) == queues.get(name)
    }
    loops = {n for n, p in functions(stack).items() if p.get("RecursiveLoop") == "Allow"}
    return sorted(feeds ^ loops)


def the_access_log_holds_nothing_that_a_client_writes(stack: Stack) -> list[str]:
    """A quote in a path would write members of the line; a query or a header may hold a token."""
    wanted = ("$context.path", "$context.identity.userAgent", "$context.queryString", "$request")
    return [
        variable
        for stage in of(stack, "AWS::ApiGatewayV2::Stage").values()
        for variable in wanted
        if variable in stage["AccessLogSettings"]["Format"]
    ]


def every_queue_is_encrypted(stack: Stack) -> list[str]:
    return [
        name
        for name, queue in of(stack, "AWS::SQS::Queue").items()
        if queue.get("SqsManagedSseEnabled") is not True and not queue.get("KmsMasterKeyId")
    ]


def every_consumed_queue_redrives_and_outlasts_its_function(stack: Stack) -> list[str]:
    queues = of(stack, "AWS::SQS::Queue")
    found = []
    for name, mapping in of(stack, "AWS::Lambda::EventSourceMapping").items():
        queue = queues[named(mapping["EventSourceArn"])]
        function = functions(stack)[function_of(stack, mapping["FunctionName"])]
        redrive = queue.get("RedrivePolicy", {})
        if (
            named(redrive.get("deadLetterTargetArn")) not in queues
            or not 1 < redrive.get("maxReceiveCount", 0) <= 10
            or queue["VisibilityTimeout"] < 6 * function["Timeout"]
            or mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]
        ):
            found.append(name)
    return found


def every_dead_letter_queue_keeps_two_weeks_and_has_an_alarm(stack: Stack) -> list[str]:
    watched = {
        named(dimension["Value"])
        for alarm in of(stack, "AWS::CloudWatch::Alarm").values()
        for dimension in alarm.get("Dimensions", [])
        if alarm.get("MetricName") == "ApproximateNumberOfMessagesVisible"
        and alarm["Threshold"] == 0
    }
    queues = of(stack, "AWS::SQS::Queue")
    return [
        name
        for name in sorted(dead_letter_queues(stack))
        if name not in watched or queues[name].get("MessageRetentionPeriod") != TWO_WEEKS
    ]


def every_alarm_can_tell_somebody(stack: Stack) -> list[str]:
    return [
        name
        for name, alarm in of(stack, "AWS::CloudWatch::Alarm").items()
        if not mentions(alarm.get("AlarmActions"), "AlarmTopicArn") or not alarm["AlarmDescription"]
    ]


# ---- the front door


def operations(stack: Stack) -> Iterator[tuple[str, dict[str, Any]]]:
    """(route key, operation) of the HTTP API."""
    [api] = of(stack, "AWS::ApiGatewayV2::Api").values()
    for path, methods in api["Body"]["paths"].items():
        for method, operation in methods.items():
            yield (path if path == "$default" else f"{method.upper()} {path}"), operation


def only_health_plans_and_the_unrouted_are_public(stack: Stack) -> list[str]:
    public = {"GET /v1/health", "$default"}
    public |= {"GET /v1/billing/plans", "GET /v1/billing/plans/{planId}"}
    return [
        route
        for route, operation in operations(stack)
        if (route in public) != (operation.get("security") == [{"NONE": []}])
        or (route not in public and operation.get("security") != [{"AuthorizeRequest": []}])
    ]


def the_authorizer_is_asked_at_least_once_a_minute(stack: Stack) -> list[str]:
    [api] = of(stack, "AWS::ApiGatewayV2::Api").values()
    return [
        name
        for name, scheme in api["Body"]["components"]["securitySchemes"].items()
        if (a := scheme["x-amazon-apigateway-authorizer"])["authorizerResultTtlInSeconds"] > 60
        or a["identitySource"] != ["$request.header.Authorization"]
        or a["authorizerPayloadFormatVersion"] != "2.0"
        or a["enableSimpleResponses"] is not True
    ]


def every_stage_is_throttled_and_logged(stack: Stack) -> list[str]:
    found = []
    for name, stage in of(stack, "AWS::ApiGatewayV2::Stage").items():
        limits, log = stage.get("DefaultRouteSettings", {}), stage.get("AccessLogSettings", {})
        secret = any(word in log.get("Format", "") for word in ("header", "querystring", "token"))
        if not limits.get("ThrottlingRateLimit") or not log.get("DestinationArn") or secret:
            found.append(name)
    return found


def every_public_route_has_lower_limits_of_its_own(stack: Stack) -> list[str]:
    """As the parameters' defaults are."""
    public = {route for route, found in operations(stack) if found["security"] == [{"NONE": []}]}
    [stage] = of(stack, "AWS::ApiGatewayV2::Stage").values()
    own = stage.get("RouteSettings", {})
    known = stack["Parameters"]

    def limit(settings: dict[str, Any], name: str) -> float:
        value = settings.get(name, "inf")
        return float(known[named(value)]["Default"] if named(value) else value)

    return [
        route
        for route in sorted(public | set(own))
        for name in ("ThrottlingRateLimit", "ThrottlingBurstLimit")
        if route not in public  # CloudFormation refuses limits of a route that is not there
        or limit(own.get(route, {}), name) >= limit(stage["DefaultRouteSettings"], name)
    ]


# ---- the bucket


def every_bucket_is_private_encrypted_and_tidied(stack: Stack) -> list[str]:
    found = []
    for name, bucket in of(stack, "AWS::S3::Bucket").items():
        closed = bucket.get("PublicAccessBlockConfiguration", {})
        rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
        if (
            [closed.get(key) for key in sorted(closed)] != [True] * 4
            or bucket["OwnershipControls"]["Rules"] != [{"ObjectOwnership": "BucketOwnerEnforced"}]
            or not bucket.get("BucketEncryption")
            or not any(
                r.get("Prefix") == "incoming/" and r.get("ExpirationInDays") == 1 for r in rules
            )
            or not any("AbortIncompleteMultipartUpload" in r for r in rules)
            or stack["Resources"][name].get("DeletionPolicy") != "RetainExceptOnCreate"
        ):
            found.append(name)
    return found


def every_bucket_takes_browsers_from_the_given_origins_only(stack: Stack) -> list[str]:
    return [
        name
        for name, bucket in of(stack, "AWS::S3::Bucket").items()
        for rule in bucket["CorsConfiguration"]["Fn::If"][1]["CorsRules"]
        if rule["AllowedOrigins"] != {"Fn::Split": [",", {"Ref": "CorsOrigins"}]}
        or set(rule["AllowedMethods"]) != {"PUT", "GET", "HEAD"}
        or "*" in rule["AllowedHeaders"]
    ]


def every_bucket_refuses_plain_http_and_what_a_url_must_not_do(stack: Stack) -> list[str]:
    policies = {
        named(p["Bucket"]): p["PolicyDocument"]["Statement"]
        for p in of(stack, "AWS::S3::BucketPolicy").values()
    }
    found = []
    for name in of(stack, "AWS::S3::Bucket"):
        denied = [
            s for s in policies.get(name, []) if s.get("Effect") == "Deny" and s["Principal"] == "*"
        ]
        conditions = [s["Condition"] for s in denied]
        wanted: list[dict[str, Any]] = [
            {"Bool": {"aws:SecureTransport": "false"}},
            {"StringNotEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256"}},
            {
                "Null": {"s3:if-none-match": "true"},
                "Bool": {"s3:ObjectCreationOperation": "true"},
            },
        ]
        found += [f"{name}: {missing}" for missing in wanted if missing not in conditions]
        if not any("s3:signatureAge" in c.get("NumericGreaterThan", {}) for c in conditions):
            found.append(f"{name}: signatureAge")
        # A CopyObject carries no If-None-Match: asked for anywhere but under incoming/, it would
        # refuse our own copies to assets/.
        found += [
            f"{name}: {s['Sid']}"
            for s in denied
            if "Null" in s["Condition"] and not str(s["Resource"]).count("/incoming/*")
        ]
    return found


# ---- layers


def every_layer_is_a_new_version_of_its_functions(stack: Stack) -> list[str]:
    """The layers' architecture is the functions', and old versions are not kept for ever."""
    return [
        name
        for name, layer in of(stack, "AWS::Lambda::LayerVersion").items()
        if layer["CompatibleArchitectures"] != [{"Ref": "Architecture"}]
        or stack["Resources"][name].get("DeletionPolicy") != "Delete"
    ]


def everything_is_described(stack: Stack) -> list[str]:
    return [
        name
        for section in ("Parameters", "Outputs")
        for name, item in stack[section].items()
        if not item.get("Description")
    ] + [name for name, p in functions(stack).items() if not p.get("Description")]


RULES: list[Rule] = [
    every_function_has_a_log_group_with_retention,
    every_function_has_a_role_of_its_own,
    every_function_is_traced,
    every_function_runs_what_the_parameters_say,
    no_concurrency_is_reserved_unless_a_parameter_says_so,
    every_called_function_is_a_published_version,
    every_function_waits_for_the_migration,
    a_parameter_that_reaches_a_function_publishes_a_version,
    a_property_that_no_version_counts_comes_with_one_that_does,
    no_function_may_make_a_log_group,
    every_role_that_reads_a_secret_may_use_the_secrets_key,
    every_publisher_is_held_to_its_sources,
    no_alarm_is_there_before_what_it_waits_for,
    only_a_source_that_can_bring_something_is_polled,
    who_copies_a_message_to_its_own_queue_may_loop,
    the_access_log_holds_nothing_that_a_client_writes,
    no_policy_has_a_wildcard,
    no_managed_policy_but_the_runtimes_own,
    every_schedule_retries_and_has_a_dead_letter_queue,
    every_function_nobody_waits_for_has_a_failure_destination,
    every_rule_target_has_a_dead_letter_queue,
    every_queue_of_a_rule_lets_the_rule_in,
    every_queue_is_encrypted,
    every_consumed_queue_redrives_and_outlasts_its_function,
    every_dead_letter_queue_keeps_two_weeks_and_has_an_alarm,
    every_alarm_can_tell_somebody,
    only_health_plans_and_the_unrouted_are_public,
    the_authorizer_is_asked_at_least_once_a_minute,
    every_stage_is_throttled_and_logged,
    every_public_route_has_lower_limits_of_its_own,
    every_bucket_is_private_encrypted_and_tidied,
    every_bucket_takes_browsers_from_the_given_origins_only,
    every_bucket_refuses_plain_http_and_what_a_url_must_not_do,
    every_layer_is_a_new_version_of_its_functions,
    everything_is_described,
]
