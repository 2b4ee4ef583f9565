"""What the API's description (OpenAPI 3.1) says beyond the serializers: tokens, errors, headers."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiParameter

SAVES_NOTHING = "x-saves-nothing"  # marks a POST that only asks
IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER,
    description="The version that was read. 409 `stale` where the question was edited since.",
)  # fmt: skip
IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {"type": "string", "maxLength": 200},
    "description": "The same key and body get the same answer for 24 hours and write once.",
}
PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "For programs; does not change."},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "field": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string"},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
REFUSALS = {
    "400": "The request cannot be read, or a field is not valid.",
    "401": "No token, or one that is not valid.",
    "403": "The caller may not do that.",
    "404": "There is no such thing, or the caller may not see it; or the cursor is none of ours.",
    "409": "Something else is true by now; the code says what.",
    "413": "The request is larger than 256 kB.",
    "415": "Only application/json is read.",
    "429": "Too many writes; Retry-After says in how many seconds there are more.",
}


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = "support.api_requests.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


def add_problems(result: Any, **_: Any) -> Any:
    """Give every operation its refusals and, where it writes, its key."""
    result["components"]["schemas"]["Problem"] = PROBLEM
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            given = {"400", "401", "403"} | ({"404"} if _may_miss(path, operation) else set())
            if method != "get":
                given |= {"413", "415", "429"}
            if method != "get" and not operation.pop(SAVES_NOTHING, False):
                given.add("409")
                operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
            for status in sorted(given):
                operation["responses"][status] = {
                    "description": REFUSALS[status],
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/Problem"}
                        }
                    },
                }
    return result


def _may_miss(path: str, operation: Any) -> bool:
    """Whether a request names something that may not be there: a row, or a place in a list."""
    named = {given["name"] for given in operation.get("parameters", [])}
    return "{" in path or "cursor" in named
