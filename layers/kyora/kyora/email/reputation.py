"""The day's bounce and complaint rates: Resend pauses an account at 4 % and 0.08 %.

Source: https://resend.com/legal/acceptable-use
"""

from aws_lambda_powertools.metrics import MetricUnit

from kyora.observability import gauge
from kyora.postgres import transaction

_FEW = 50  # with fewer mails a rate says nothing; nor does a single complaint
_DAY = """
SELECT count(*) AS sent, count(*) FILTER (WHERE status = 'bounced') AS bounced,
    count(*) FILTER (WHERE status = 'complained') AS complained
FROM email_message WHERE ended_at > now() - interval '1 day'
    AND status NOT IN ('skipped', 'dead')
"""


def measure() -> None:
    """Report both rates in percent, and how many sending domains are not verified."""
    with transaction() as tx:
        row = tx.row(_DAY) or {}
        bad = tx.value(int, "SELECT count(*) FROM email_domain WHERE status <> 'verified'")
    gauge("EmailDomainsNotVerified", bad or 0, MetricUnit.Count)
    sent, bounced, complained = (int(str(row[n])) for n in ("sent", "bounced", "complained"))
    gauge("EmailBouncePercent", _percent(bounced, sent), MetricUnit.Percent)
    known = complained if complained > 1 else 0
    gauge("EmailComplaintPercent", _percent(known, sent), MetricUnit.Percent)


def _percent(part: int, sent: int) -> float:
    return 100 * part / sent if sent >= _FEW else 0.0
