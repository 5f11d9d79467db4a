"""The CloudFront distribution of public variants: off unless it is asked for, and what it reads."""

from typing import Any

from local import template
from tests import policy

ARN = "arn:aws:s3:::files"
RESOURCES = template.read()["Resources"]


def statement() -> dict[str, Any]:
    document = RESOURCES["BucketPolicy"]["Properties"]["PolicyDocument"]
    [found] = [one["Fn::If"] for one in document["Statement"] if "Fn::If" in one]
    condition, allowed, otherwise = found
    assert (condition, otherwise) == ("HasDistribution", {"Ref": "AWS::NoValue"})
    source = {"StringEquals": {"aws:SourceArn": "the distribution"}}
    assert "${Distribution}" in str(allowed["Condition"]["StringEquals"]["aws:SourceArn"])
    resource = allowed["Resource"]["Fn::Sub"].replace("${Bucket.Arn}", ARN)
    return {**allowed, "Resource": resource, "Condition": source}


def test_the_distribution_reads_public_and_nothing_else() -> None:
    allowed, ours = statement(), {"aws:SourceArn": "the distribution"}
    assert allowed["Principal"] == {"Service": "cloudfront.amazonaws.com"}
    assert policy.allowed([allowed], "s3:GetObject", f"{ARN}/public/ws/ast/try/small.webp", ours)
    for key in ("assets/ws/ast/try", "incoming/ws/ast", "variants/ws/ast/try/small.webp", "public"):
        assert not policy.allowed([allowed], "s3:GetObject", f"{ARN}/{key}", ours), key
    for action in ("s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetObjectVersion"):
        assert not policy.allowed([allowed], action, f"{ARN}/public/x", ours), action
    another = {"aws:SourceArn": "another distribution"}
    assert not policy.allowed([allowed], "s3:GetObject", f"{ARN}/public/x", another)


def test_it_is_made_only_when_it_is_asked_for_and_for_the_stacks_own_bucket() -> None:
    source = template.read()
    assert source["Parameters"]["PublicDistribution"]["Default"] == "false"
    assert source["Conditions"]["HasDistribution"] == {
        "Fn::And": [
            {"Condition": "OwnBucket"},
            {"Fn::Equals": [{"Ref": "PublicDistribution"}, "true"]},
        ]
    }
    for name in ("Distribution", "DistributionAccess"):
        assert RESOURCES[name]["Condition"] == "HasDistribution"


def test_it_takes_requests_that_read_over_tls_and_signs_its_own() -> None:
    config = RESOURCES["Distribution"]["Properties"]["DistributionConfig"]
    behavior = config["DefaultCacheBehavior"]
    assert behavior["AllowedMethods"] == ["GET", "HEAD"]
    assert behavior["ViewerProtocolPolicy"] == "https-only"
    [origin] = config["Origins"]
    assert origin["OriginAccessControlId"] == {"Fn::GetAtt": ["DistributionAccess", "Id"]}
    access = RESOURCES["DistributionAccess"]["Properties"]["OriginAccessControlConfig"]
    assert (access["SigningBehavior"], access["SigningProtocol"]) == ("always", "sigv4")
