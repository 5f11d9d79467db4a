"""Which workspace a business belongs to, for domains that only get its id."""

from kyora.postgres import Transaction


def owns_business(tx: Transaction, workspace_id: str, business_id: str) -> bool:
    """Tell whether the business is the workspace's."""
    found = tx.row(
        "SELECT 1 AS found FROM business WHERE id = :id AND workspace_id = :workspace_id",
        id=business_id,
        workspace_id=workspace_id,
    )
    return found is not None
