"""Every function on S3's objects, held by an S3 that knows the policies of template.yaml.

Each function runs under an access key of its own name, as Lambda gives each a role of its own. The
S3 here looks up what that function may do and refuses the rest; a URL may do what
its signer may. At the end every permission must have been needed.
"""

from contextlib import suppress

import pytest

from local import template
from tests.integration.support import invariants
from tests.integration.support.s3_policies import USERS, Cloud, cloud, policy, walk

__all__ = ["cloud"]


def test_every_permission_on_objects_is_enough_and_is_needed(cloud: Cloud) -> None:
    walk(cloud)
    assert cloud.refused == []
    assert cloud.used == cloud.policies
    [kept] = invariants.rows("SELECT id FROM asset WHERE status = 'ready'")
    assert {key.split("/")[2] for key in cloud.objects} == {kept["id"]}


@pytest.mark.parametrize("function", USERS)
def test_a_permission_that_is_missing_is_noticed(function: str, cloud: Cloud) -> None:
    permission = min(cloud.policies[function])
    cloud.policies[function].discard(permission)
    with suppress(AssertionError, KeyError):  # where it shows is another matter
        walk(cloud)
    assert (function, *permission) in cloud.refused


def test_no_other_function_has_a_permission_on_objects() -> None:
    every = {template.folder(name) for name in template.functions(template.read())}
    assert {name for name in every if policy(name)} == {*USERS, "migrate_database"}
    assert {prefix for _, prefix in policy("migrate_database")} == {""}  # the bucket, no object
