"""The local stack's malware scanner, with UPLOADS_SCANNING=local: what GuardDuty is on AWS.

It reads each copy under assets/ once the store has it, and puts the result on the default bus in
GuardDuty's shape, under a name of its own: no one but AWS may publish as `aws.guardduty`. It knows
the EICAR test file, also inside a ZIP, and asks ClamAV's daemon where one runs.
"""

import asyncio
import json
import logging
import os
import shutil
import socket
import struct
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from local.settings import Settings
from local.stack import deploy, emulator

SOURCE = "kyora.scanner"
DETAIL_TYPE = "GuardDuty Malware Protection Object Scan Result"
NAME = "kyora-local-scanner"  # of the queue and the rule
# In two halves, so that no scanner takes this file for the test file. (Source: eicar.org.)
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}" + rb"$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
_CLAMD = "/run/clamav/clamd.ctl"  # Debian's; CLAMD_SOCKET names another
_DEPTH, _MEMBERS, _BYTES = 3, 1000, 256 << 20  # how far a ZIP is looked into
_CHUNK = 1 << 16


class Result(NamedTuple):
    """A scan's status, result status and threats, in GuardDuty's words."""

    scan: str
    result: str
    threats: tuple[str, ...] = ()


CLEAN = Result("COMPLETED", "NO_THREATS_FOUND")
UNSUPPORTED = Result("SKIPPED", "UNSUPPORTED")
FAILED = Result("FAILED", "FAILED")


def scan(file: IO[bytes], clamd: str | None = None) -> Result:
    """Scan a file, of any size; `clamd` is the socket of ClamAV's daemon, if there is one."""
    found = _eicar(file, _DEPTH, [_MEMBERS, _BYTES])
    if found.threats or clamd is None:
        return found
    try:
        name = _ask_clamd(file, clamd)
    except _TooLarge:
        return UNSUPPORTED
    except OSError:
        return FAILED
    return Result("COMPLETED", "THREATS_FOUND", (name,)) if name else found


def _eicar(file: IO[bytes], depth: int, budget: list[int]) -> Result:
    head = file.read(len(EICAR))
    if head == EICAR:
        return Result("COMPLETED", "THREATS_FOUND", ("EICAR-Test-File",))
    if not head.startswith(b"PK"):
        return CLEAN
    unread = False
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                budget[0] -= 1
                budget[1] -= member.file_size
                if member.flag_bits & 1 or depth == 0 or min(budget) < 0:
                    unread = True  # a password, or too large or too deep to be read
                    continue
                with archive.open(member) as packed, tempfile.SpooledTemporaryFile(_CHUNK) as inner:
                    shutil.copyfileobj(packed, inner)
                    inner.seek(0)
                    found = _eicar(inner, depth - 1, budget)
                if found.threats:
                    return found
                unread = unread or found is UNSUPPORTED
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError):
        return UNSUPPORTED
    return UNSUPPORTED if unread else CLEAN


class _TooLarge(Exception):
    """The file is larger than the daemon's StreamMaxLength."""


def _ask_clamd(file: IO[bytes], address: str) -> str:
    """Return the name of what ClamAV finds, or an empty text. Raises OSError and _TooLarge.

    Source: clamd(8), INSTREAM: chunks with their length in front, an empty one ends the stream.
    """
    file.seek(0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.settimeout(60)
        daemon.connect(address)
        with suppress(BrokenPipeError, ConnectionResetError):  # it has answered and hung up
            daemon.sendall(b"zINSTREAM\0")
            while part := file.read(_CHUNK):
                daemon.sendall(struct.pack("!L", len(part)) + part)
            daemon.sendall(struct.pack("!L", 0))
        answer = b""
        with suppress(ConnectionResetError):  # after the answer to a file that it left unread
            while part := daemon.recv(4096):
                answer += part
    said = answer.rstrip(b"\0\n").decode(errors="replace").removeprefix("stream: ")
    if said.endswith(" FOUND"):
        return said.removesuffix(" FOUND")
    if said.startswith("INSTREAM size limit exceeded"):
        raise _TooLarge
    if said != "OK":
        raise OSError(said[:200])
    return ""


def detail(bucket: str, key: str, found: Result) -> dict[str, Any]:
    """Return the event's detail as GuardDuty's user guide shows it."""
    return {
        "schemaVersion": "1.0",
        "scanStatus": found.scan,
        "resourceType": "S3_OBJECT",
        "s3ObjectDetails": {
            "bucketName": bucket,
            "objectKey": key,
            "s3Throttled": False,
        },
        "scanResultDetails": {
            "scanResultStatus": found.result,
            "threats": [{"name": name} for name in found.threats] or None,
        },
    }


def clamd(environ: Mapping[str, str]) -> str | None:
    """Return the socket of ClamAV's daemon, where one runs."""
    address = environ.get("CLAMD_SOCKET") or _CLAMD
    return address if Path(address).is_socket() else None


# ---- the stack's


@asynccontextmanager
async def scanning(stack: Settings) -> AsyncIterator[None]:
    """Scan what is uploaded for as long as the block runs, when the stack is to be scanned so."""
    if stack.environ.get("UPLOADS_SCANNING") != "local":
        yield
        return
    work = asyncio.ensure_future(_scan_all(stack))
    try:
        yield
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def _scan_all(stack: Settings) -> None:
    scan_new = await asyncio.to_thread(_rounds, stack)
    while True:
        try:
            await asyncio.to_thread(scan_new)
        except Exception:  # the emulator may be busy; a message comes again
            logging.getLogger("kyora.front").exception("scan failed")  # logs/front.log
            await asyncio.sleep(1)


def _rounds(stack: Settings) -> Callable[[], None]:
    """Return what waits about a second for new copies, and scans them."""
    if stack.environ.get("STORAGE_PROVIDER") == "local":
        seen: set[str] = set()
        return lambda: _scan_folder(stack, seen)
    clients = {name: emulator.client(name, stack.gateway_port) for name in ("sqs", "s3", "events")}
    queue = _queue(clients["sqs"], clients["events"])
    return lambda: _scan_bucket(stack, queue, clients["sqs"], clients["s3"])


def _scan_bucket(stack: Settings, queue: str, sqs: Any, s3: Any) -> None:
    answer = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1, MaxNumberOfMessages=10)
    for message in answer.get("Messages", []):
        event = json.loads(message["Body"])["detail"]
        bucket, key = event["bucket"]["name"], event["object"]["key"]
        with suppress(s3.exceptions.NoSuchKey), tempfile.TemporaryFile() as file:  # deleted since
            shutil.copyfileobj(s3.get_object(Bucket=bucket, Key=key)["Body"], file)
            file.seek(0)
            _publish(stack, bucket, key, scan(file, clamd(os.environ)))
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


def _scan_folder(stack: Settings, seen: set[str]) -> None:
    time.sleep(0.5)
    found = {str(path.relative_to(stack.assets)) for path in stack.assets.glob("assets/*/*/*")}
    for key in sorted(found - seen):
        with suppress(FileNotFoundError), (stack.assets / key).open("rb") as file:  # deleted since
            _publish(stack, _bucket(stack), key, scan(file, clamd(os.environ)))
        seen.add(key)
    seen &= found


def _queue(sqs: Any, events: Any) -> str:
    """Make the queue that S3's events on assets/ go to; return its address."""
    url = str(sqs.create_queue(QueueName=NAME)["QueueUrl"])
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    pattern = {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"object": {"key": [{"prefix": "assets/"}]}},
    }
    events.put_rule(Name=NAME, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=NAME, Targets=[{"Id": "scanner", "Arn": found["QueueArn"]}])
    return url


def _bucket(stack: Settings) -> str:
    return stack.environ.get("STORAGE_S3_BUCKET") or str((deploy.stack(stack) or {})["Bucket"])


def _publish(stack: Settings, bucket: str, key: str, found: Result) -> None:
    entry = {
        "Source": SOURCE,
        "DetailType": DETAIL_TYPE,
        "Detail": json.dumps(detail(bucket, key, found)),
    }
    emulator.client("events", stack.gateway_port).put_events(Entries=[entry])
