"""What IAM makes of a policy's statements and a request: a small evaluator.

It knows the operators that template.yaml uses and raises for any other, so that a new one is not
passed over. Source: IAM User Guide, "Policy evaluation logic" and "IAM JSON policy elements:
Condition operators".
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

type Statement = Mapping[str, Any]
type Context = Mapping[str, str]


def denied_by(
    statements: Sequence[Statement], action: str, resource: str, context: Context
) -> list[str]:
    """The Sids of the statements that deny a request."""
    return [
        str(statement.get("Sid", "?"))
        for statement in statements
        if statement["Effect"] == "Deny" and applies(statement, action, resource, context)
    ]


def allowed(statements: Sequence[Statement], action: str, resource: str, context: Context) -> bool:
    """Whether a request is allowed: by one statement, and denied by none."""
    return not denied_by(statements, action, resource, context) and any(
        statement["Effect"] == "Allow" and applies(statement, action, resource, context)
        for statement in statements
    )


def applies(statement: Statement, action: str, resource: str, context: Context) -> bool:
    """Whether a statement speaks of a request."""
    return (
        _matches(statement["Action"], action.lower(), lower=True)
        and _matches(statement["Resource"], resource)
        and all(
            _holds(operator, key, _list(values), context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _matches(patterns: Any, text: str, *, lower: bool = False) -> bool:
    return any(_like(text, p.lower() if lower else p) for p in _list(patterns))


def _like(text: str, pattern: str) -> bool:
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _holds(operator: str, key: str, values: list[str], context: Context) -> bool:
    """Whether a condition holds; several values of a key are alternatives."""
    present = {name.lower(): text for name, text in context.items()}
    found = present.get(key.lower())
    if operator == "Null":
        return (found is None) == (values == ["true"])
    if operator.endswith("IfExists"):
        return found is None or _holds(operator.removesuffix("IfExists"), key, values, context)
    if operator == "StringNotEquals":  # a negated operator holds for a key that is missing
        return found is None or found not in values
    if found is None:
        return False
    match operator:
        case "Bool":
            return found.lower() in [value.lower() for value in values]
        case "StringEquals":
            return found in values
        case "StringLike" | "ArnEquals" | "ArnLike":
            return any(_like(found, value) for value in values)
        case "NumericGreaterThan":
            return any(float(found) > float(value) for value in values)
    raise NotImplementedError(operator)
