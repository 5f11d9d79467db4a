"""What bench/peer.py runs in dj-stripe's environment: Django's own test client, eight processes."""
# mypy: ignore-errors

import hashlib
import hmac
import json
import statistics
import sys
import time
from multiprocessing import get_context

FILE, SOCKET, STRIPE, SECRET, KEY = sys.argv[1:6]
UUID = "7f7ab3a0-5a4b-4a5e-9f59-0f0a3d1f9f10"


def _django() -> None:
    import django
    import stripe
    from django.conf import settings

    stripe.api_base = STRIPE
    settings.configure(
        SECRET_KEY="bench",  # noqa: S106
        ALLOWED_HOSTS=["*"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "peer",
                "USER": "postgres",
                "HOST": SOCKET,
                "CONN_MAX_AGE": None,
            }
        },
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "djstripe",
        ],
        ROOT_URLCONF="djstripe.urls",
        STRIPE_TEST_SECRET_KEY=KEY,
        STRIPE_LIVE_MODE=False,
        DJSTRIPE_FOREIGN_KEY_TO_FIELD="id",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    django.setup()


def _prepare() -> None:
    import psycopg

    with psycopg.connect(host=SOCKET, user="postgres", dbname="postgres", autocommit=True) as link:
        link.execute("DROP DATABASE IF EXISTS peer WITH (FORCE)")
        link.execute("CREATE DATABASE peer")
    _django()
    from django.core.management import call_command
    from djstripe.models import WebhookEndpoint

    call_command("migrate", verbosity=0)
    WebhookEndpoint.objects.create(
        id="we_bench",
        livemode=False,
        secret=SECRET,
        url="http://127.0.0.1/webhook",
        status="enabled",
        enabled_events=["*"],
        api_version="",
        djstripe_uuid=UUID,
    )


def _deliver(body: str) -> tuple[int, float, int]:
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    stamp = str(int(time.time()))
    digest = hmac.new(SECRET.encode(), f"{stamp}.{body}".encode(), hashlib.sha256).hexdigest()
    began = time.perf_counter()
    with CaptureQueriesContext(connection) as queries:
        try:
            answer = Client(raise_request_exception=False).post(
                f"/webhook/{UUID}/",
                data=body,
                content_type="application/json",
                headers={"stripe-signature": f"t={stamp},v1={digest}"},
            )
            status = answer.status_code
        except Exception:
            status = 599
    return status, time.perf_counter() - began, len(queries)


def main() -> None:
    """Prepare the database, deliver, print one line of JSON."""
    with open(FILE) as file:  # noqa: PTH123
        bodies = json.load(file)
    _prepare()
    from django.db import connections

    connections.close_all()
    with get_context("fork").Pool(8) as pool:
        pool.map(_deliver, bodies[:8], chunksize=1)
        began = time.perf_counter()
        found = pool.map(_deliver, bodies, chunksize=1)
        took = time.perf_counter() - began
    times = [seconds for _, seconds, _ in found]
    statuses: dict[str, int] = {}
    for status, _, _ in found:
        statuses[str(status)] = statuses.get(str(status), 0) + 1
    print(
        json.dumps(
            {
                "deliveries": len(bodies),
                "deliveries_a_second": round(len(bodies) / took),
                "p50_ms": round(statistics.median(times) * 1000, 1),
                "p99_ms": round(statistics.quantiles(times, n=100)[98] * 1000, 1),
                "statuses": statuses,
                "statements": round(statistics.mean(n for _, _, n in found), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
