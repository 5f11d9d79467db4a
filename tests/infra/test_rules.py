"""The template keeps our rules, and each rule notices when it is broken."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.infra import rules
from tests.infra.rules import RULES, Rule, Stack, of

type Damage = Callable[[Stack], None]


def of_one(stack: Stack, kind: str) -> dict[str, Any]:
    return next(iter(of(stack, kind).values()))


def function(stack: Stack, name: str = "ConfirmUploadFunction") -> dict[str, Any]:
    return rules.functions(stack)[name]


def statement(stack: Stack) -> dict[str, Any]:
    role: dict[str, Any] = of(stack, "AWS::IAM::Role")["RelayOutboxFunctionRole"]
    found: dict[str, Any] = role["Policies"][-1]["PolicyDocument"]["Statement"][-1]
    return found


def operation(stack: Stack, wanted: str) -> dict[str, Any]:
    return dict(rules.operations(stack))[wanted]


def bucket_policy(stack: Stack, sid: str) -> dict[str, Any]:
    found = of_one(stack, "AWS::S3::BucketPolicy")["PolicyDocument"]["Statement"]
    return next(s for s in found if s.get("Sid") == sid)


# One line each: what a change could do to the template, and the rule that has to object.
DAMAGES: list[tuple[Rule, Damage]] = [
    (
        rules.every_function_has_a_log_group_with_retention,
        lambda s: of(s, "AWS::Logs::LogGroup")["ConfirmUploadLog"].pop("RetentionInDays"),
    ),
    (
        rules.every_function_has_a_log_group_with_retention,
        lambda s: function(s).pop("LoggingConfig"),
    ),
    (
        rules.every_function_has_a_role_of_its_own,
        lambda s: function(s).update(Role=function(s, "ManageAssetFunction")["Role"]),
    ),
    (rules.every_function_is_traced, lambda s: function(s).pop("TracingConfig")),
    (
        rules.every_function_runs_what_the_parameters_say,
        lambda s: function(s).update(Architectures=["x86_64"]),
    ),
    (
        rules.no_concurrency_is_reserved_unless_a_parameter_says_so,
        lambda s: function(s).update(ReservedConcurrentExecutions={"Ref": "MemorySize"}),
    ),
    (
        rules.every_called_function_is_a_published_version,
        lambda s: s["Resources"].pop("ConfirmUploadFunctionAliaslive"),
    ),
    (
        rules.every_function_waits_for_the_migration,
        lambda s: function(s)["Environment"]["Variables"].pop("CONFIGURATION"),
    ),
    (
        rules.a_parameter_that_reaches_a_function_publishes_a_version,
        lambda s: s["Resources"]["DatabaseMigration"]["Properties"]["Configuration"].remove(
            {"Ref": "StorageS3Endpoint"}
        ),
    ),
    (
        rules.a_property_that_no_version_counts_comes_with_one_that_does,
        lambda s: function(s).update(Tags=[{"Key": "team", "Value": "files"}]),
    ),
    (
        rules.a_property_that_no_version_counts_comes_with_one_that_does,
        lambda s: function(s).update(SomethingNew="x"),
    ),
    (
        rules.no_function_may_make_a_log_group,
        lambda s: of(s, "AWS::IAM::Role")["RejectUnroutedFunctionRole"].pop("Policies"),
    ),
    (
        rules.every_role_that_reads_a_secret_may_use_the_secrets_key,
        lambda s: of_one(s, "AWS::IAM::Policy")["Roles"].pop(),
    ),
    (
        rules.every_role_that_reads_a_secret_may_use_the_secrets_key,
        lambda s: s["Resources"]["DatabaseMigration"]["Properties"]["Configuration"].clear(),
    ),
    (rules.every_publisher_is_held_to_its_sources, lambda s: statement(s).pop("Condition")),
    (
        rules.no_alarm_is_there_before_what_it_waits_for,
        lambda s: s["Resources"]["OutboxAgeAlarm"].pop("DependsOn"),
    ),
    (
        rules.only_a_source_that_can_bring_something_is_polled,
        lambda s: s["Resources"]["StripeSource"].pop("Condition"),
    ),
    (
        rules.who_copies_a_message_to_its_own_queue_may_loop,
        lambda s: function(s, "SendEmailFunction").pop("RecursiveLoop"),
    ),
    (
        rules.the_access_log_holds_nothing_that_a_client_writes,
        lambda s: of_one(s, "AWS::ApiGatewayV2::Stage")["AccessLogSettings"].update(
            Format='{"path":"$context.path"}'
        ),
    ),
    (rules.no_policy_has_a_wildcard, lambda s: statement(s).update(Resource="*")),
    (rules.no_policy_has_a_wildcard, lambda s: statement(s).update(Action="events:*")),
    (
        rules.no_policy_has_a_wildcard,
        lambda s: statement(s).update(Resource={"Fn::Sub": ["arn:aws:s3:::${Name}/*", {}]}),
    ),
    (
        rules.no_managed_policy_but_the_runtimes_own,
        lambda s: of(s, "AWS::IAM::Role")["ConfirmUploadFunctionRole"]["ManagedPolicyArns"].append(
            "x/AmazonS3FullAccess"
        ),
    ),
    (
        rules.every_schedule_retries_and_has_a_dead_letter_queue,
        lambda s: of_one(s, "AWS::Scheduler::Schedule")["Target"].pop("DeadLetterConfig"),
    ),
    (
        rules.every_function_nobody_waits_for_has_a_failure_destination,
        lambda s: s["Resources"].pop("MigrateDatabaseFunctionEventInvokeConfig"),
    ),
    (
        rules.every_function_nobody_waits_for_has_a_failure_destination,
        lambda s: of(s, "AWS::Lambda::EventInvokeConfig")[
            "RelayOutboxFunctionEventInvokeConfig"
        ].update(Qualifier="$LATEST"),
    ),
    (
        rules.every_rule_target_has_a_dead_letter_queue,
        lambda s: of_one(s, "AWS::Events::Rule")["Targets"][0].pop("DeadLetterConfig"),
    ),
    (
        rules.every_queue_of_a_rule_lets_the_rule_in,
        lambda s: s["Resources"].pop("UploadQueuesPolicy"),
    ),
    (
        rules.every_queue_is_encrypted,
        lambda s: of_one(s, "AWS::SQS::Queue").pop("SqsManagedSseEnabled"),
    ),
    (
        rules.every_consumed_queue_redrives_and_outlasts_its_function,
        lambda s: function(s, "VerifyUploadFunction").update(Timeout=600),
    ),
    (
        rules.every_consumed_queue_redrives_and_outlasts_its_function,
        lambda s: of(s, "AWS::SQS::Queue")["UploadQueue"].pop("RedrivePolicy"),
    ),
    (
        rules.every_dead_letter_queue_keeps_two_weeks_and_has_an_alarm,
        lambda s: s["Resources"].pop("JobDeadLettersAlarm"),
    ),
    (
        rules.every_alarm_can_tell_somebody,
        lambda s: of_one(s, "AWS::CloudWatch::Alarm").pop("AlarmActions"),
    ),
    (
        rules.only_health_plans_and_the_unrouted_are_public,
        lambda s: operation(s, "GET /v1/assets/{assetId}").update(security=[{"NONE": []}]),
    ),
    (
        rules.the_authorizer_is_asked_at_least_once_a_minute,
        lambda s: of_one(s, "AWS::ApiGatewayV2::Api")["Body"]["components"]["securitySchemes"][
            "AuthorizeRequest"
        ]["x-amazon-apigateway-authorizer"].update(authorizerResultTtlInSeconds=300),
    ),
    (
        rules.every_stage_is_throttled_and_logged,
        lambda s: of_one(s, "AWS::ApiGatewayV2::Stage").pop("AccessLogSettings"),
    ),
    (
        rules.every_public_route_has_lower_limits_of_its_own,
        lambda s: of_one(s, "AWS::ApiGatewayV2::Stage")["RouteSettings"].pop("$default"),
    ),
    (
        rules.every_public_route_has_lower_limits_of_its_own,
        lambda s: of_one(s, "AWS::ApiGatewayV2::Stage")["RouteSettings"]["GET /v1/health"].update(
            ThrottlingRateLimit={"Ref": "ApiRateLimit"}
        ),
    ),
    (
        rules.every_bucket_is_private_encrypted_and_tidied,
        lambda s: of_one(s, "AWS::S3::Bucket")["PublicAccessBlockConfiguration"].update(
            BlockPublicPolicy=False
        ),
    ),
    (
        rules.every_bucket_takes_browsers_from_the_given_origins_only,
        lambda s: of_one(s, "AWS::S3::Bucket")["CorsConfiguration"]["Fn::If"][1]["CorsRules"][
            0
        ].update(AllowedOrigins=["*"]),
    ),
    (
        rules.every_bucket_refuses_plain_http_and_what_a_url_must_not_do,
        lambda s: bucket_policy(s, "OnlyTls").update(Effect="Allow"),
    ),
    (
        rules.every_bucket_refuses_plain_http_and_what_a_url_must_not_do,
        lambda s: bucket_policy(s, "NoOverwrite").update(Resource="arn:aws:s3:::bucket/*"),
    ),
    (
        rules.every_layer_is_a_new_version_of_its_functions,
        lambda s: of_one(s, "AWS::Lambda::LayerVersion").update(CompatibleArchitectures=["arm64"]),
    ),
    (rules.everything_is_described, lambda s: s["Parameters"]["Stage"].pop("Description")),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_template_keeps(rule: Rule, stack: Stack) -> None:
    assert rule(stack) == []


@pytest.mark.parametrize(
    ("rule", "damage"),
    [pytest.param(*d, id=f"{d[0].__name__}-{n}") for n, d in enumerate(DAMAGES)],
)
def test_a_broken_template_breaks(rule: Rule, damage: Damage, stack: Stack) -> None:
    damage(stack)
    assert rule(stack) != []


def test_every_rule_is_known_to_break() -> None:
    assert {rule for rule, _ in DAMAGES} == set(RULES)
