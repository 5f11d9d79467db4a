"""What checkov finds passes only with a reason; `make check` runs it, this is how it judges."""

from typing import Any

import pytest

from local.tools.checkov import ACCEPTED, Accepted, Finding, faults

SQS = Finding("CKV_AWS_27", "AWS::SQS::Queue.EmailQueue", "encrypted")
URL = "AWS::Lambda::Url.StripeWebhookFunctionUrl"


def test_what_is_accepted_passes() -> None:
    assert faults([SQS], {"CKV_AWS_27": ACCEPTED["CKV_AWS_27"]}) == []


def test_a_finding_that_no_one_accepted_fails() -> None:
    assert faults([SQS], {}) == ["CKV_AWS_27 AWS::SQS::Queue.EmailQueue: encrypted"]


def test_what_is_accepted_on_some_resources_fails_on_others() -> None:
    accepted = {"CKV_AWS_258": ACCEPTED["CKV_AWS_258"]}
    found = [Finding("CKV_AWS_258", name, "auth") for name in (URL, f"{URL}2")]
    assert faults(found, accepted) == [f"CKV_AWS_258 {URL}2: auth"]


def test_a_reason_that_nothing_needs_fails() -> None:
    assert faults([], {"CKV_AWS_1": Accepted(".*", "because")}) == [
        "CKV_AWS_1 is accepted and finds nothing"
    ]


@pytest.mark.parametrize("kind", ["AWS::SQS::Queue"])
def test_the_reason_that_queues_are_encrypted_holds(kind: str, stack: dict[str, Any]) -> None:
    queues = [r["Properties"] for r in stack["Resources"].values() if r["Type"] == kind]
    assert len(queues) >= 9
    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues)
