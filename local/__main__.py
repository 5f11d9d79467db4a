"""`python -m local COMMAND`: the command line behind the Makefile."""

import argparse
import asyncio
import io
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from local import settings
from local.progress import Trouble, complain, say, step

if TYPE_CHECKING:
    from local.commands import remote


def main() -> int:
    """Run a command; Trouble is one sentence and exit code 1."""
    # No traceback for a Ctrl-C while modules are loaded, which is why they are loaded late.
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    chosen = _parser().parse_args()
    for stream in (sys.stdout, sys.stderr):  # a terminal of another encoding shows \u2713 for ✓
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name in ("NO_PROXY", "no_proxy"):  # what we call is on this machine
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
    try:
        _follow_clock(chosen)
        _COMMANDS[chosen.command](chosen)
    except Trouble as trouble:
        complain(str(trouble))
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Unforeseen: keep the traceback.
        log = settings.ROOT / ".local" / "logs" / "error.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc())
        complain(f"stopped by an unexpected error: {error!r} (details: {log})")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the command line; a command that acts on data takes `--env`."""
    parser = argparse.ArgumentParser(prog="python -m local")
    commands = parser.add_subparsers(dest="command", required=True)

    def anywhere(name: str, does: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=does)
        command.add_argument("--env", help="a deployed stack instead: dev, staging or prod")
        return command

    commands.add_parser("run", help="start everything and keep it running")
    commands.add_parser("stop", help="stop the stack that `make run` started")
    commands.add_parser("build", help="sam build for this machine")
    anywhere("migrate", "apply the database migrations")
    logs = commands.add_parser("logs", help="print the functions' log lines as they come")
    logs.add_argument("--once", action="store_true", help="print the lines so far and stop")
    logs.add_argument("--function", metavar="NAME", help="only of this function")
    logs.add_argument("--id", help="only lines with this id of a request, asset, order or event")
    logs.add_argument("--level", type=str.upper, help="only of this level and above, e.g. WARNING")
    emit = anywhere("emit", "put a sample of an event on the bus")
    emit.add_argument("event", help="its name, e.g. UserWelcomed")
    emit.add_argument("--file", type=Path, help="JSON with fields that replace the sample's")
    redrive = anywhere("redrive", "send a queue's dead letters back to it")
    redrive.add_argument("queue", help="e.g. emails")
    anywhere("events", "print the events on the bus as they come")
    waiting = anywhere("outbox", "list events that did not reach the bus")
    waiting.add_argument("--drop", metavar="EVT", help="give this one up")
    mails = anywhere("mails", "list mail and its status; send one again")
    mails.add_argument("--failed", action="store_true", help="only mail that failed")
    mails.add_argument("--to", metavar="ADDRESS", help="only to this address")
    mails.add_argument("--event", metavar="NAME", help="only of this event, by its name or id")
    mails.add_argument("--resend", metavar="EML", help="send this one again")
    mails.add_argument("--seen", action="store_true", help="mark the failed mail as seen")
    stopped = anywhere("suppressions", "list the addresses that get no mail")
    stopped.add_argument("--lift", metavar="ADDRESS", help="remove this one")
    stopped.add_argument("--show", action="store_true", help="print whole addresses")
    rebuild = anywhere("rebuild-analytics", "recount the stored events")
    rebuild.add_argument("--business", metavar="ID", help="only this one")
    variants = anywhere("variants", "make variants of images again")
    whose = variants.add_mutually_exclusive_group(required=True)
    whose.add_argument("--asset", metavar="AST", help="of this image")
    whose.add_argument("--failed", action="store_true", help="of all that failed")
    whose.add_argument("--all", action="store_true", help="of all that asked for them")
    anywhere("reconcile", "compare our billing data with Stripe")
    replay = anywhere("replay", "process Stripe events again")
    which = replay.add_mutually_exclusive_group(required=True)
    which.add_argument("--event", metavar="EVT", help="this one")
    which.add_argument("--failed", action="store_true", help="all that failed")
    which.add_argument("--since", metavar="TIME", help="all that came at or after a time")
    bind = anywhere("bind", "link a Stripe customer to a workspace")
    bind.add_argument("customer", help="cus_…, or sub_… for its customer")
    bind.add_argument("workspace", help="ws_…")
    why = anywhere("why", "say why a workspace has the access that it has")
    why.add_argument("workspace", help="ws_…")
    traced = anywhere("trace", "say what became of an id")
    traced.add_argument("id", help="of an asset, order, invoice, event, mail, request, trace, …")
    smoke = anywhere("smoke", "test every integration end to end")
    smoke.add_argument("--mail", help="where the test mail goes; else Resend's test address")
    smoke.add_argument("--only", default="", help="names of checks, separated by commas")
    smoke.add_argument("--patience", type=float, default=180, help="seconds to wait for each check")
    synced = anywhere("sync-plans", "copy Stripe's plans")
    synced.add_argument("--check", action="store_true", help="only report differences; exit code 2")
    pushed = anywhere("push-plans", "write a catalogue to the Stripe account")
    pushed.add_argument("file", type=Path, help="TOML such as plans.toml")
    anywhere("status", "show whether everything works; exit code 1 if not")
    clock = commands.add_parser("time", help="show or move the local stack's clock")
    clock.add_argument("to", nargs="?", help="+7d, a date, renewal, trial-end, grace-end or reset")
    clock.add_argument("--workspace", default=settings.WORKSPACE, help="whose renewal; ws_demo")
    clock.add_argument("--env", help="refused: only the local stack's clock can be moved")
    commands.add_parser("clean", help="delete the local data and every built file")
    return parser


def _run() -> None:
    port = settings.read_port(os.environ)
    say(f"Starting Kyora Integrations on http://{settings.HOST}:{port}")
    from local.commands import run

    asyncio.run(run.run(port))


def _stop() -> None:
    """Stop the running stack as Ctrl-C does, and wait for its end."""
    process = settings.running(os.environ)
    if process is None:
        say("The local stack is not running.")
        return
    os.kill(process, signal.SIGINT)
    deadline = time.monotonic() + 40
    while settings.running(os.environ) == process:
        if time.monotonic() > deadline:
            raise Trouble(f"process {process} still runs; `kill -9 {process}` ends it")
        time.sleep(0.1)
    say("Stopped.")


async def _build() -> None:
    from local.stack import deploy

    log = settings.ROOT / ".local" / "logs" / "build.log"
    if deploy.built() == await asyncio.to_thread(deploy.fingerprint):
        say("  ✓ sam build: nothing changed")
        return
    with step("sam build", starting="sam build, about half a minute the first time"):
        await deploy.build(log)
    for name, (unpacked, zipped) in deploy.layer_sizes().items():
        say(f"    {name:<14} {unpacked:5.1f} MB, zipped {zipped:4.1f} MB")


def _running() -> tuple[settings.Settings, dict[str, str]]:
    from local import template
    from local.stack import deploy, emulator

    env = settings.read_env()
    port = int(env["AWS_ENDPOINT_URL"].rpartition(":")[2])
    if not emulator.healthy(port):
        raise settings.unavailable()
    running = settings.Settings(
        home=Path(),
        port=int(env["PORT"]),
        gateway_port=port,
        postgres_port=0,
        stripe_port=int(env["STRIPE_URL"].rpartition(":")[2]) if env.get("STRIPE_URL") else 0,
        secrets={},
        environ=env,
    )
    functions = {
        template.folder(logical): name
        for logical, name in (deploy.stack(running) or {}).items()
        if logical.endswith("Function")
    }
    return running, functions


def _migrate(env: str | None) -> None:
    from local.commands import run
    from local.stack import watch

    if env:
        from local.commands import remote

        with step(f"migrate_database of {env}") as line:
            applied = remote.deployed(env, "migrate_database")({})["applied"]
            line.append(", ".join(applied) or "nothing to apply")
        return
    with step("migrate_database") as line:
        running, functions = _running()
        watch.publish_migrations(running, functions)
        applied = run.migrate(running, functions)
        line.append(f"applied {', '.join(applied)}" if applied else "nothing to apply")


def _logs(chosen: argparse.Namespace) -> None:
    from local.web import logs

    running, functions = _running()
    if chosen.function and chosen.function not in functions:
        raise Trouble(f"there is no function {chosen.function!r}; there are {', '.join(functions)}")
    asked = {chosen.function: functions[chosen.function]} if chosen.function else functions
    since, seen = dict.fromkeys(asked, time.time() - 3600), set[str]()
    while True:
        lines: list[dict[str, object]] = []
        for folder, name in asked.items():
            found = logs.log_lines(running, {folder: name}, since[folder])
            lines += [line for line in found if line["id"] not in seen]
            # The same second is asked for again: its lines may not all have been there.
            since[folder] = max([since[folder], *(float(str(line["at"])) - 1 for line in found)])
        for line in sorted(lines, key=lambda line: float(str(line["at"]))):
            seen.add(str(line["id"]))
            if logs.is_wanted(line, chosen.id, chosen.level):
                at = time.strftime("%H:%M:%S", time.localtime(float(str(line["at"]))))
                say(f"{at}  {line['function']:<18} {line['level']:<7} {line['text']}")
        if chosen.once:
            return
        time.sleep(1)


def _bus(chosen: argparse.Namespace) -> None:
    from local.commands import dead_letters, events, place

    where = place.find(chosen.env)
    if chosen.command == "emit":
        events.emit(where, chosen.event, chosen.file)
    elif chosen.command == "redrive" and dead_letters.queue_name(where, chosen.queue) == "emails":
        from local.commands import mails

        mails.redrive(where, _ask("send_email", chosen.env))
    elif chosen.command == "redrive":
        dead_letters.redrive(where, chosen.queue)
    else:
        events.tail(where)


def _mails(chosen: argparse.Namespace) -> None:
    from local.commands import mails, place

    ask = _ask("send_email", chosen.env)
    if chosen.resend:
        mails.resend(place.find(chosen.env), ask, chosen.resend)
    elif chosen.seen:
        mails.seen(place.find(chosen.env), ask)
    else:
        mails.show(ask, {"failed": chosen.failed, "to": chosen.to, "event": chosen.event})


def _outbox(chosen: argparse.Namespace) -> None:
    from local.commands import outbox

    ask = _ask("relay_outbox", chosen.env)
    if chosen.drop:
        outbox.drop(ask, chosen.drop)
    else:
        outbox.show(ask)


def _suppressions(chosen: argparse.Namespace) -> None:
    from local.commands import suppressions

    asked = {"lift": chosen.lift} if chosen.lift else {"show": chosen.show}
    answer = _ask("send_email", chosen.env)({"suppressions": asked})
    suppressions.report(answer, chosen.lift)


def _rebuild_analytics(chosen: argparse.Namespace) -> None:
    from local.commands import analytics

    analytics.rebuild(_ask("update_analytics", chosen.env), chosen.business)


def _variants(chosen: argparse.Namespace) -> None:
    from local.commands import variants

    variants.rebuild(_ask("make_variants", chosen.env), chosen.asset, failed=chosen.failed)


def _reconcile(chosen: argparse.Namespace) -> None:
    from local.commands import billing

    billing.reconcile(_ask("reconcile_billing", chosen.env))


def _replay(chosen: argparse.Namespace) -> None:
    from local.commands import billing

    asked = {"event": chosen.event, "failed": chosen.failed, "since": chosen.since}
    billing.replay(_ask("sweep_billing", chosen.env), asked)


def _bind(chosen: argparse.Namespace) -> None:
    from local.commands import billing

    billing.bind(_ask("sweep_billing", chosen.env), chosen.customer, chosen.workspace)


def _why(chosen: argparse.Namespace) -> None:
    from local.commands import billing

    billing.why(_ask("sweep_billing", chosen.env), chosen.workspace)


def _trace(chosen: argparse.Namespace) -> None:
    from local.commands import trace

    trace.show(_ask("report_status", chosen.env), chosen.id)


def _ask(folder: str, env: str | None) -> "remote.Ask":
    """Return how to ask a function: of the deployed stack `env`, else of the local one."""
    from local.commands import remote

    return remote.deployed(env, folder) if env else remote.local(*_running(), folder)


def _smoke(chosen: argparse.Namespace) -> None:
    from local.commands import place, smoke

    where = place.find(chosen.env)
    run = smoke.Run(
        where,
        smoke.address(where),
        _ask("migrate_database", chosen.env),
        _ask("sync_plans", chosen.env),
        chosen.mail or smoke.TO,
        chosen.patience,
        token=os.environ.get("TOKEN", ""),
    )
    if not smoke.smoke(run, chosen.only):
        sys.exit(1)


def _status(env: str | None) -> None:
    from local.commands import place, status

    asks = _ask("report_status", env), _ask("sync_plans", env)
    if not status.show(place.find(env), *asks):
        sys.exit(1)


def _plans(chosen: argparse.Namespace) -> None:
    from local.commands import plans

    ask = _ask("sync_plans", chosen.env)
    if chosen.command == "push-plans":
        plans.push(ask, chosen.file)
    elif code := plans.sync(ask, check=chosen.check):
        sys.exit(code)


def _time(chosen: argparse.Namespace) -> None:
    from local.commands import clock

    if chosen.env:
        raise Trouble(f"only the local stack's clock can be moved, and {chosen.env} is no such")
    env = settings.read_env()
    if chosen.to is None:
        clock.show(env, chosen.workspace)
    elif not clock.move(env, chosen.to, chosen.workspace):
        sys.exit(1)


def _follow_clock(chosen: argparse.Namespace) -> None:
    """Give a command the time of the local stack that it talks to; `run` follows it itself."""
    if chosen.command == "run" or getattr(chosen, "env", None):
        return
    from local.shift import sitecustomize

    file = settings.running_clock(os.environ)
    if file is not None and sitecustomize.Shift(file).nanoseconds:
        sitecustomize.install(file)


def _clean() -> None:
    home = settings.ROOT / ".local"
    _, lock = settings.claim_home({"KYORA_LOCAL_DIR": str(home)}, 0)
    with lock:
        for path in home.iterdir():
            # The installed tools stay; `rm -r .local .venv` removes them as well.
            if path.name not in {"uv", "ministack", "checkov", "clients", "clients-npm"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in (".aws-sam", "tmp"):
            shutil.rmtree(settings.ROOT / name, ignore_errors=True)
    say("The local data and every built file are deleted.")


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "run": lambda _: _run(),
    "stop": lambda _: _stop(),
    "build": lambda _: asyncio.run(_build()),
    "time": _time,
    "migrate": lambda chosen: _migrate(chosen.env),
    "logs": _logs,
    "emit": _bus,
    "redrive": _bus,
    "events": _bus,
    "outbox": _outbox,
    "mails": _mails,
    "suppressions": _suppressions,
    "rebuild-analytics": _rebuild_analytics,
    "variants": _variants,
    "reconcile": _reconcile,
    "replay": _replay,
    "bind": _bind,
    "why": _why,
    "trace": _trace,
    "sync-plans": _plans,
    "push-plans": _plans,
    "smoke": _smoke,
    "status": lambda chosen: _status(chosen.env),
    "clean": lambda _: _clean(),
}

if __name__ == "__main__":
    sys.exit(main())
