"""Messages to another program: signed (Standard Webhooks), never to a machine of our own network.

The name is resolved once. All its addresses have to be public; the connection goes to the one that
was looked at, so that a name which points elsewhere a moment later (rebinding) gains nothing.
"""

import base64
import http.client
import ipaddress
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from standardwebhooks import Webhook

TIMEOUT_SECONDS = 5.0  # for connecting, and for each wait after that
LEAST_BYTES = 24  # of a secret, as the standard asks for
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses in another dress
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(Exception):
    """The address is one that nothing is sent to: not a web address, or not a public one."""


class NotTaken(Exception):
    """The other side did not take the message; says why in a word."""


@dataclass(frozen=True)
class Target:
    """A web address and the one machine that is asked."""

    host: str
    port: int
    path: str
    is_https: bool
    address: str


def is_public(address: Address) -> bool:
    """Whether an address is one of the open network, also inside of another notation."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo:
            return False
        if inner:
            return is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved)


def read_url(url: str, *, allows_private: bool) -> SplitResult:
    """The parts of an address that may be sent to, as far as it alone tells.

    Raises AddressRefused.
    """
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError as error:
        raise AddressRefused("not a web address") from error
    if parts.scheme not in ({"http", "https"} if allows_private else {"https"}):
        raise AddressRefused("only https")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise AddressRefused("not a plain web address")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise AddressRefused("holds other characters than an address does")
    return parts


def is_secret(secret: str) -> bool:
    """Whether a secret is one that signs: `whsec_` and 24 bytes or more in base64."""
    prefix, _underscore, encoded = secret.partition("_")
    try:
        return prefix == "whsec" and len(base64.b64decode(encoded, validate=True)) >= LEAST_BYTES
    except ValueError:
        return False


def resolve(url: str, *, allows_private: bool) -> Target:
    """Find whom to connect to. Raises AddressRefused; OSError where the name is not found."""
    parts = read_url(url, allows_private=allows_private)
    assert parts.hostname
    is_https = parts.scheme == "https"
    port = parts.port or (443 if is_https else 80)
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in found]
    if not allows_private and not all(is_public(address) for address in addresses):
        raise AddressRefused("not a public address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.hostname, port, path, is_https, str(addresses[0]))


class _PinnedConnection(http.client.HTTPConnection):
    """Connects to the machine that was looked at, under the name that it is asked by."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.host, target.port, timeout=TIMEOUT_SECONDS)
        self.target = target

    def connect(self) -> None:
        plain = socket.create_connection((self.target.address, self.target.port), TIMEOUT_SECONDS)
        self.sock: Any = plain
        if self.target.is_https:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(plain, server_hostname=self.target.host)


def headers(body: str, *, key: str, secret: str, now: datetime) -> dict[str, str]:
    """What a message is sent with: its id, its time, and a signature over these and the body."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "AskOnce",
        "webhook-id": key,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(key, now.astimezone(UTC), body),
    }


def send(
    url: str,
    message: Mapping[str, Any],
    *,
    key: str,
    secret: str,
    now: datetime,
    allows_private: bool = False,
) -> int:
    """Send a message once; return the status it was taken with. A redirect is not followed.

    `key` stays the same when it is sent again, so that the other side can tell. Raises
    AddressRefused, NotTaken.
    """
    body = json.dumps(message, separators=(",", ":"))
    signed = headers(body, key=key, secret=secret, now=now)
    try:
        connection = _PinnedConnection(resolve(url, allows_private=allows_private))
        try:
            target = connection.target
            connection.request("POST", target.path, body.encode(), signed)
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise NotTaken(type(error).__name__) from error
    if not 200 <= status < 300:
        raise NotTaken(f"HTTP {status}")
    return status
