"""Another workspace's asset, and an id that is none, answer byte for byte like an unknown id."""

from collections.abc import Mapping

import pytest

from kyora.postgres import Transaction
from tests.integration.support import api, invariants
from tests.integration.support.api import Answer
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Store, every_store, method
from tests.integration.support.workers import Crew

BY_ID = [route for route in api.ROUTES if "{assetId}" in route]
BODIES = {
    "POST /v1/assets/{assetId}/multipart/parts": {"parts": [{"number": 1, "size": 5}]},
    "POST /v1/assets/{assetId}/multipart/complete": {"parts": [{"number": 1, "etag": "e"}]},
}

# Strings that are not ids. The gateway decodes a path parameter once before the function sees it.
NO_IDS = [
    "x",
    "ast_",
    "ast_0000000000000000000000000",
    "ast_000000000000000000000000000",
    "ast_0000000000000000000000000L",
    "AST_00000000000000000000000000",
    "ast_00000000000000000000000000\n",
    "ast_0000000000000000000000000٣",
    "' OR '1'='1",
    "'; DROP TABLE asset; --",
    "../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "\0",
    "\ud800",
    "$(id)",
    "{{7*7}}",
    "a" * 10_000,
    "ast_01kaq3v6m8r5x9y2c4d7f0h1jk OR 1=1",
]


@every_store
def test_an_asset_of_another_workspace_does_not_exist_in_any_state(
    store: Store, crew: Crew
) -> None:
    """Body and headers, for each route and each state."""
    unknown: dict[str, Answer] = {
        route: api.call(route, body=BODIES.get(route), asset_id=api.UNKNOWN, who=api.STRANGER)
        for route in BY_ID
    }
    assert {answer.status for answer in unknown.values()} == {404}
    assert {answer.code for answer in unknown.values()} == {"asset.not_found"}
    asset_id = api.upload(PNG)
    ready, verifying, deleted, expired = (api.upload(PNG) for _ in range(4))
    rejected = api.request(PNG, sha256=None)
    api.put(rejected, b"MZ".ljust(len(PNG.data)))
    api.confirm(ready)
    assert api.confirm(rejected["assetId"]).status == 422
    api.delete(deleted)
    invariants.pass_deadline(expired)
    api.sweep()
    with crew.stalled(
        method(store, "copy"), "after", "POST /v1/assets/{assetId}/confirm", asset_id=verifying
    ) as finish:
        states = {
            "pending": asset_id,
            "verifying": verifying,
            "ready": ready,
            "rejected": rejected["assetId"],
            "expired": expired,
            "deleted": deleted,
        }
        before = invariants.rows("SELECT * FROM asset ORDER BY id")
        for state, target in states.items():
            assert invariants.status(target) == state
            for route in BY_ID:
                headers = {"x-workspace-id": "ws_demo", "x-request-id": "request-1"}
                answer = api.call(
                    route,
                    body=BODIES.get(route),
                    asset_id=target,
                    who=api.STRANGER,
                    headers=headers,
                )
                assert answer.same_as(unknown[route]), (state, route)
                assert answer.headers["X-Request-Id"] == "request-1"
            # The event path: a key of the stranger's workspace with another workspace's id.
            assert api.deliver(f"incoming/ws_other/{target}") == []
            assert api.deliver(f"incoming/ws_other/{api.UNKNOWN}") == []
        assert invariants.rows("SELECT * FROM asset ORDER BY id") == before
        assert finish().status == 200
    assert invariants.usage("ws_other") == (0, 0)


def test_an_asset_of_another_workspace_costs_what_an_unknown_one_costs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timing: the same statements run for both, so that no clock distinguishes them."""
    statements: list[str] = []
    real = Transaction._execute

    def counted(self: Transaction, sql: str, params: Mapping[str, object]) -> list[list[object]]:
        statements.append(sql)
        return real(self, sql, params)

    asset_id = api.upload(PNG)
    api.confirm(asset_id)
    monkeypatch.setattr(Transaction, "_execute", counted)
    for route in BY_ID:
        seen = []
        for target in (api.UNKNOWN, asset_id):
            statements.clear()
            assert (
                api.call(route, body=BODIES.get(route), asset_id=target, who=api.STRANGER).status
                == 404
            )
            seen.append(list(statements))
        assert seen[0] == seen[1] != [], route


@pytest.mark.parametrize("route", BY_ID)
def test_what_is_no_id_is_an_unknown_id(route: str, store: Store) -> None:
    """49."""
    unknown = api.call(route, body=BODIES.get(route), asset_id=api.UNKNOWN)
    for asset_id in NO_IDS:
        assert api.call(route, body=BODIES.get(route), asset_id=asset_id).same_as(unknown), asset_id
        assert api.deliver(f"incoming/ws_demo/{asset_id}") == [], asset_id
    assert invariants.nothing_happened()


def test_quota_and_uploads_of_a_workspace_are_its_own(store: Store) -> None:
    invariants.limit(len(PNG.data), "ws_demo")
    mine, theirs = api.upload(PNG), api.upload(PNG, api.STRANGER)
    assert api.confirm(theirs, api.STRANGER).status == 200
    assert api.confirm(mine).status == 200
    assert invariants.usage("ws_demo") == invariants.usage("ws_other") == (len(PNG.data), 0)
    assert {key.split("/")[1] for key in store.list()} == {"ws_demo", "ws_other"}
    api.delete(theirs, api.STRANGER)
    assert invariants.usage("ws_demo") == (len(PNG.data), 0)
    assert api.get(mine).status == 200


def test_two_workspaces_with_the_same_bytes_share_nothing(store: Store) -> None:
    mine, theirs = api.upload(PNG), api.upload(PNG, api.STRANGER)
    api.confirm(mine)
    api.confirm(theirs, api.STRANGER)
    assert len(store.list()) == 2
