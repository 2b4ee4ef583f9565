"""Under which names things are cached: names that tell nothing."""

from django.utils.crypto import salted_hmac


def hidden_key(key: str, prefix: str, version: int) -> str:
    """A cache's key without what it is made of: limits on sign-ins are counted by address."""
    return salted_hmac(
        "support.caching", f"{prefix}:{version}:{key}", algorithm="sha256"
    ).hexdigest()
