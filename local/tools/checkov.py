"""checkov over the template as CloudFormation gets it: `make check`. It needs no network.

Accepted findings are listed here with their reasons. Any other finding fails the check, and so does
an accepted one that checkov no longer reports.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from local import template
from local.bootstrap import CHECKOV, ROOT
from local.progress import Trouble


class Accepted(NamedTuple):
    """A finding that stays, on these resources (a pattern), and why."""

    resources: str
    reason: str


ACCEPTED: Mapping[str, Accepted] = {
    "CKV_AWS_18": Accepted(
        r"AWS::S3::Bucket\.Bucket",
        "Every object is written and read through an address that a function signed and logged.",
    ),
    "CKV_AWS_27": Accepted(
        r"AWS::SQS::Queue\.\w+",
        "Queues are encrypted with SQS's own key (SqsManagedSseEnabled); checkov knows KMS only.",
    ),
    "CKV_AWS_68": Accepted(
        r"AWS::CloudFront::Distribution\.Distribution",
        "It serves files that never change to GET and HEAD, without query or cookie.",
    ),
    "CKV_AWS_86": Accepted(
        r"AWS::CloudFront::Distribution\.Distribution",
        "Who looked at a public picture is kept nowhere.",
    ),
    "CKV_AWS_115": Accepted(
        r"AWS::Lambda::Function\.(VerifyUpload|MakeVariants|SendEmail|RecordTransactionFee"
        r"|UpdateAnalytics|MigrateDatabase)Function",
        "The queue's mapping limits its consumer (MaximumConcurrency); a migration runs alone.",
    ),
    "CKV_AWS_116": Accepted(
        r"AWS::Lambda::Function\.\w+",
        "Asynchronous runs have an OnFailure destination, queues a redrive policy; for the others"
        " a caller waits for the answer.",
    ),
    "CKV_AWS_158": Accepted(
        r"AWS::Logs::LogGroup\.\w+",
        "Encrypted with CloudWatch's own key; log lines hold ids and codes, never a person's data.",
    ),
    "CKV_AWS_173": Accepted(
        r"AWS::Lambda::Function\.\w+",
        "Encrypted with Lambda's own key; the variables hold names of secrets, never a secret.",
    ),
    "CKV_AWS_174": Accepted(
        r"AWS::CloudFront::Distribution\.Distribution",
        "With CloudFront's own certificate AWS decides; a domain in front has its own policy.",
    ),
    "CKV_AWS_258": Accepted(
        r"AWS::Lambda::Url\.(Stripe|Resend)WebhookFunctionUrl",
        "Stripe and Resend have no AWS identity; each body's signature is verified instead.",
    ),
}


class Finding(NamedTuple):
    """A failed check of a resource."""

    check: str
    resource: str
    name: str


def faults(findings: list[Finding], accepted: Mapping[str, Accepted] = ACCEPTED) -> list[str]:
    """Return a line for each finding that is not accepted and for each reason without one."""
    refused = []
    needed = set()
    for found in findings:
        known = accepted.get(found.check)
        if known and re.fullmatch(known.resources, found.resource):
            needed.add(found.check)
        else:
            refused.append(f"{found.check} {found.resource}: {found.name}")
    return refused + [
        f"{check} is accepted and finds nothing" for check in accepted.keys() - needed
    ]


def scan(packaged: object) -> list[Finding]:
    """Run checkov over a translated template."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "template.json"
        file.write_text(json.dumps(packaged))
        done = subprocess.run(
            [
                *(str(ROOT / CHECKOV / "bin/checkov"), "--file", str(file)),
                *("--framework", "cloudformation", "--output", "json"),
                *("--skip-download", "--quiet", "--compact"),  # no guidelines from the network
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        answer = json.loads(done.stdout)
        failed, errors = answer["results"]["failed_checks"], answer["summary"]["parsing_errors"]
        seen = answer["summary"]["resource_count"]
    except (ValueError, KeyError, TypeError):
        raise Trouble(f"checkov gave no answer: {done.stderr.strip()[-500:]}") from None
    if errors or not seen:
        raise Trouble("checkov could not read the template")
    return [Finding(f["check_id"], f["resource"], f["check_name"]) for f in failed]


def main() -> int:
    """Print the faults; return 0 when there are none."""
    try:
        findings = scan(template.translated())
    except Trouble as trouble:
        print(f"kyora: {trouble}", file=sys.stderr)
        return 1
    wrong = faults(findings)
    print("\n".join(wrong) or f"checkov: {len(findings)} findings, each accepted with its reason")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
