"""The provider `mock`: Resend's contract, delivering to a mailbox table in Postgres.

A key is honoured for 24 hours: the same message is stored once and answered with its first id, and
another message under the same key is refused. `fail` scripts the answers to the next sends.
"""

import hashlib
import json

from kyora import config
from kyora.email import address
from kyora.email.message import Held, Message, Refusal, Sent, check, payload
from kyora.ids import new_id
from kyora.observability import logger
from kyora.postgres import Transaction, transaction


class Mock:
    """Stores what it is given; the local console shows it."""

    name = "mock"

    def __init__(self) -> None:
        if config.stage() == "prod":  # config refuses it as well
            raise ValueError("the mock provider would swallow real mail")

    def send(self, message: Message, idempotency_key: str) -> Sent:
        """Store the message, unless it is stored already or a failure was asked for."""
        check(message, idempotency_key)
        with transaction() as tx:
            failure = _next_failure(tx)
            kept = _keep(tx, message, idempotency_key) if failure is None else None
            if failure is not None and failure["accepted"]:
                _keep(tx, message, idempotency_key)
        if failure is not None:
            wait = failure["retry_after"]
            raise Refusal(
                int(str(failure["status"])),
                str(failure["name"]),
                "Asked for.",
                retry_after=None if wait is None else float(str(wait)),
            )
        if kept is None:
            raise Refusal(409, "invalid_idempotent_request", "The key stands for another message.")
        logger().info(
            "mail kept",
            extra={"mail_id": kept, "to": address.mask(message.recipient)} | dict(message.tags),
        )
        return Sent(kept)

    def lift(self, address: str) -> str:  # noqa: ARG002  # the Provider's arguments
        """Return nothing: the mock has no suppression list."""
        return ""

    def suppressed(self, deadline: float) -> Held:  # noqa: ARG002
        """Return an empty list: the mock has none."""
        return Held({}, whole=False, refused="mock")


def fail(
    status: int,
    name: str = "",
    *,
    retry_after: float | None = None,
    accepted: bool = False,
    times: int = 1,
) -> None:
    """Answer the next `times` sends with a refusal; `accepted` ones are stored nevertheless."""
    with transaction() as tx:
        tx.run(
            "INSERT INTO mock_failure (status, name, retry_after, accepted)"
            " SELECT :status, :name, CAST(:retry_after AS real), :accepted"
            " FROM generate_series(1, CAST(:times AS integer))",
            status=status,
            name=name,
            retry_after=retry_after,
            accepted=accepted,
            times=times,
        )


def _next_failure(tx: Transaction) -> dict[str, object] | None:
    return tx.row(
        "DELETE FROM mock_failure WHERE id = ("
        " SELECT id FROM mock_failure ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
        ") RETURNING status, name, retry_after, accepted"
    )


def _keep(tx: Transaction, message: Message, idempotency_key: str) -> str | None:
    """Return the id under which the message is stored; None when the key is another message's."""
    digest = hashlib.sha256(payload(message)).hexdigest()
    tx.rows("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))", key=idempotency_key)
    first = tx.row(
        "SELECT id, payload_sha256 FROM mock_mailbox"
        " WHERE idempotency_key = :key AND created_at > now() - interval '24 hours'"
        " ORDER BY created_at DESC LIMIT 1",
        key=idempotency_key,
    )
    if first is not None:
        return str(first["id"]) if first["payload_sha256"] == digest else None
    mail_id = new_id("mail")
    tx.run(
        "INSERT INTO mock_mailbox (id, idempotency_key, payload_sha256, recipient, sender,"
        " reply_to, subject, html, text, headers, tags, template, locale)"
        " VALUES (:id, :key, :digest, :recipient, :sender, :reply_to, :subject, :html, :text,"
        " CAST(:headers AS jsonb), CAST(:tags AS jsonb), :template, :locale)",
        id=mail_id,
        key=idempotency_key,
        digest=digest,
        recipient=message.recipient,
        sender=message.sender,
        reply_to=message.reply_to,
        subject=message.subject,
        html=message.html,
        text=message.text,
        headers=json.dumps({"Idempotency-Key": idempotency_key}),
        tags=json.dumps(dict(message.tags)),
        template=message.tags.get("template", ""),
        locale=message.tags.get("locale", ""),
    )
    return mail_id
