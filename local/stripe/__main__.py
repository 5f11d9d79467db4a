"""`python -m local.stripe --port N --state FILE --key sk_test_… --webhook-url URL …`."""

import argparse
import asyncio
import os
import signal
from pathlib import Path

from local.stripe.server import serve
from local.stripe.standin import Options


def _read() -> Options:
    parser = argparse.ArgumentParser(prog="python -m local.stripe", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--state", type=Path, help="where everything is kept between runs")
    parser.add_argument("--key", default="sk_test_standin", help="the only key that is accepted")
    parser.add_argument("--webhook-url", help="where events are delivered")
    parser.add_argument(
        "--webhook-secret", action="append", default=[], help="once per live secret"
    )
    parser.add_argument("--public-url", default="", help="where a browser finds the pages")
    parser.add_argument("--shared-clock", action="store_true", help="the clock is moved elsewhere")
    parser.add_argument("--seed", type=int, help="decides the ids; random when not given")
    given = parser.parse_args()
    hooks = ((given.webhook_url, tuple(given.webhook_secret)),) if given.webhook_url else ()
    token = os.environ.get("KYORA_CONSOLE_TOKEN")
    return Options(
        port=given.port,
        key=given.key,
        **({"token": token} if token else {}),
        state=given.state,
        webhooks=hooks,
        seed=given.seed,
        url=given.public_url,
        shared_clock=given.shared_clock,
    )


async def _main(options: Options) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with serve(options) as found:
        print(f"Stripe stand-in on {found.url}", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_main(_read()))
