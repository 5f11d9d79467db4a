"""Which workspace a business belongs to. For domains that only know its id."""

from kyora.postgres import Transaction


def owns_business(tx: Transaction, workspace_id: str, business_id: str) -> bool:
    """Return True if the business belongs to the workspace."""
    found = tx.row(
        "SELECT 1 AS found FROM business WHERE id = :id AND workspace_id = :workspace_id",
        id=business_id,
        workspace_id=workspace_id,
    )
    return found is not None
