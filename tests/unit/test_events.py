"""The event catalogue: what is read, what is refused, and what it costs."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kyora.bus import events, names, outbox
from kyora.bus.events import EVENTS, Unreadable, parse
from tests.cloud import detail

ROOT = Path(__file__).parents[2]


def test_an_event_that_others_use_keeps_its_name_and_its_source() -> None:
    """New events need no line here: the schemas of what was released are kept as well."""
    wanted = {
        "EmailVerificationRequested": "kyora.accounts",
        "PasswordResetRequested": "kyora.accounts",
        "UserWelcomed": "kyora.accounts",
        "WorkspaceInvitationCreated": "kyora.accounts",
        "SubscriptionActivated": "kyora.billing",
        "SubscriptionChanged": "kyora.billing",
        "SubscriptionCancelled": "kyora.billing",
        "PaymentSucceeded": "kyora.billing",
        "PaymentFailed": "kyora.billing",
        "TrialEnding": "kyora.billing",
        "PaymentRecovered": "kyora.billing",
        "GraceEnding": "kyora.billing",
        "PaymentMethodExpiring": "kyora.billing",
        "RenewalUpcoming": "kyora.billing",
        "SubscriptionPaused": "kyora.billing",
        "SubscriptionResumed": "kyora.billing",
        "PlansSynced": "kyora.billing",
        "AssetReady": "kyora.assets",
        "AssetRejected": "kyora.assets",
        "AssetDeleted": "kyora.assets",
        "AssetQuarantined": "kyora.assets",
        "OrderPaymentSucceeded": "kyora.orders",
        "OrderCreated": "kyora.orders",
        "CustomerCreated": "kyora.customers",
    }
    assert wanted.items() <= {name: kind.source for name, kind in EVENTS.items()}.items()


def test_an_event_with_a_token_is_sensitive_and_no_other() -> None:
    holding = {name for name, kind in EVENTS.items() if "token" in kind.model.model_fields}
    assert holding == names.SENSITIVE == {name for name, kind in EVENTS.items() if kind.sensitive}


@pytest.mark.parametrize("name", EVENTS)
def test_the_sample_is_read_as_it_is_written(name: str) -> None:
    given = detail(name)
    found = parse(name, json.loads(json.dumps(given)))
    assert (found.id, found.name, found.workspace_id) == ("evt_1", name, "ws_demo")
    assert found.correlation_id == given["correlationId"]
    assert found.data.model_dump(mode="json", exclude_none=True).keys() == given["data"].keys()


def test_a_field_of_a_later_release_is_overlooked() -> None:
    given = detail(later=1)
    given["data"] |= {"color": "green"}
    assert parse("UserWelcomed", given).data.workspace_name == "Olive & Thyme"


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [
        ("NoSuchEvent", detail(), "event.unknown"),
        ("", detail(), "event.unknown"),
        ("UserWelcomed", detail(version=2), "event.unknown_version"),
        ("UserWelcomed", detail(version="1"), "event.unknown_version"),
        ("UserWelcomed", detail(data={}), "event.invalid"),
        ("UserWelcomed", detail(data=None), "event.invalid"),
        ("UserWelcomed", detail(data=[]), "event.invalid"),
        ("UserWelcomed", detail(id=""), "event.invalid"),
        ("UserWelcomed", detail(id=7), "event.invalid"),
        ("UserWelcomed", detail(occurredAt="yesterday"), "event.invalid"),
        ("UserWelcomed", detail(occurredAt="2026-11-23T07:36:09"), "event.invalid"),
        ("UserWelcomed", detail(correlationId=None), "event.invalid"),
        ("UserWelcomed", {}, "event.invalid"),
        ("UserWelcomed", None, "event.invalid"),
        ("UserWelcomed", [], "event.invalid"),
        ("UserWelcomed", "text", "event.invalid"),
    ],
)
def test_what_cannot_be_read_is_permanent(name: str, given: object, code: str) -> None:
    with pytest.raises(Unreadable) as refused:
        parse(name, given)
    assert refused.value.code == code


def with_data(event: str, /, **changed: object) -> dict[str, Any]:
    found = detail(event)
    found["data"] |= changed
    return found


@pytest.mark.parametrize("text", ["a\0b", "\0", "\ud800", "x\udfff"], ids=ascii)
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("UserWelcomed", "name"),
        ("UserWelcomed", "workspaceName"),
        ("PasswordResetRequested", "token"),
        ("OrderCreated", "orderId"),
        ("OrderCreated", "customerId"),
        ("OrderPaymentSucceeded", "paymentMethod"),
        ("CustomerCreated", "source"),
        ("PaymentFailed", "hostedInvoiceUrl"),
        ("UserWelcomed", "id"),
        ("UserWelcomed", "workspaceId"),
        ("UserWelcomed", "correlationId"),
    ],
)
def test_a_text_that_no_database_holds_is_permanent(name: str, place: str, text: str) -> None:
    in_envelope = place in ("id", "workspaceId", "correlationId")
    given = detail(name, **{place: text}) if in_envelope else with_data(name, **{place: text})
    with pytest.raises(Unreadable) as refused:
        parse(name, given)
    assert refused.value.code in ("event.unstorable", "event.invalid")


def test_a_text_in_a_list_is_looked_at_as_well() -> None:
    with pytest.raises(Unreadable, match=r"event\.unstorable"):
        parse("PlansSynced", with_data("PlansSynced", created=["plan", "pl\0n"]))


@pytest.mark.parametrize(
    "moment",
    [
        "9999-12-31T23:59:59-12:00",
        "9999-12-31T12:00:00-12:00",
        "0001-01-01T00:00:00+14:00",
        "0001-01-01T05:29:59+05:30",
    ],
)
@pytest.mark.parametrize("name", ["OrderCreated", "OrderPaymentSucceeded", "TrialEnding"])
def test_a_moment_without_a_year_in_utc_is_permanent(name: str, moment: str) -> None:
    field = {"OrderPaymentSucceeded": "paidAt", "TrialEnding": "trialEnd"}.get(name)
    for given in (
        detail(name, occurredAt=moment),
        *([with_data(name, **{field: moment})] if field else []),
    ):
        with pytest.raises(Unreadable, match=r"event\.unstorable"):
            parse(name, given)


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00Z"])
def test_a_moment_at_the_edge_that_has_one_is_read(moment: str) -> None:
    assert parse("OrderCreated", detail("OrderCreated", occurredAt=moment)).name == "OrderCreated"


def test_a_refusal_names_places_and_never_a_value() -> None:
    given = detail("PasswordResetRequested")
    given["data"] |= {"email": "no address", "token": ["hush"]}
    with pytest.raises(Unreadable) as refused:
        parse("PasswordResetRequested", given)
    assert refused.value.fields == ("email:string_pattern_mismatch", "token:string_type")
    assert "hush" not in repr(refused.value) + str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("name", sorted(names.SENSITIVE))
def test_an_event_does_not_show_who_and_what(name: str) -> None:
    found = parse(name, detail(name))
    for text in (repr(found), str(found), repr(found.data), str(found.data)):
        assert "resend.dev" not in text
        assert "sample" not in text
        assert "Dana" not in text


def test_what_is_emitted_has_to_be_readable() -> None:
    events.check("AssetReady", {"assetId": "ast_1"})
    for data in ({}, {"assetId": 7}, {"asset_id": "ast_1"}, {"assetId": "a", "colour": "red"}, []):
        with pytest.raises(ValueError, match="AssetReady"):
            events.check("AssetReady", data)


def test_only_what_the_catalogue_has_is_emitted() -> None:
    for domain, name in (("assets", "NoSuchEvent"), ("billing", "AssetReady")):
        with pytest.raises(ValueError, match=name):
            outbox.add(None, domain, name, {}, None)  # type: ignore[arg-type]  # not reached


def test_every_emission_in_the_code_names_an_event_of_its_domain() -> None:
    """What a function emits is a literal, so that its docstring and this test can check it."""
    found = set()
    for path in (ROOT / "layers/kyora/kyora").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="add", value=ast.Name(id="outbox")),
                    args=[_, ast.Constant(value=domain), ast.Constant(value=name), *_],
                ):
                    assert names.DOMAINS[str(name)] == domain, path
                    found.add(name)
                # billing's two ways into the outbox: once for a key, and each time
                case (
                    ast.Call(
                        func=ast.Attribute(attr="once" | "first", value=ast.Name(id="announce")),
                        args=[_, _, ast.Constant(value=name), *_],
                    )
                    | ast.Call(
                        func=ast.Attribute(attr="emit", value=ast.Name(id="announce")),
                        args=[_, ast.Constant(value=name), *_],
                    )
                ):
                    assert names.DOMAINS[str(name)] == "billing", path
                    found.add(name)
                case ast.Call(
                    func=ast.Attribute(attr="once" | "first" | "emit", value=ast.Name("announce"))
                ):
                    pytest.fail(f"{path}:{node.lineno} does not say which event")
                case ast.Call(func=ast.Attribute(attr="add", value=ast.Name(id="outbox"))):
                    if path.name == "announce.py":
                        continue
                    pytest.fail(f"{path}:{node.lineno} does not say which event")
    emitting = ("assets", "billing")
    # PlansSynced is about no workspace, and comes with the plans.
    assert found >= {n for n, domain in names.DOMAINS.items() if domain in emitting} - {
        "PlansSynced"
    }


def test_an_emitter_imports_no_models() -> None:
    code = "import sys, kyora.bus.outbox; sys.exit('pydantic' in sys.modules)"
    env = {"PYTHONPATH": str(ROOT / "layers/kyora")}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_a_consumer_builds_only_the_models_it_reads() -> None:
    code = (
        "import json, sys\n"
        "from kyora.bus.events import EVENTS, parse\n"
        "parse('UserWelcomed', json.load(sys.stdin))\n"
        "print(*[n for n, k in EVENTS.items() if k.model.__pydantic_complete__])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "layers/kyora")},
        input=json.dumps(detail()),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["UserWelcomed"]
