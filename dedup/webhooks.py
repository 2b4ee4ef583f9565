"""Messages to another program: signed (Standard Webhooks), never to a machine of our own network.

The name is resolved once. All its addresses have to be public; the connection goes to the one that
was looked at, so that a name which points elsewhere a moment later (rebinding) gains nothing. A
message has one deadline for all of it: who answers a byte now and then is hung up on.
"""

import base64
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from standardwebhooks import Webhook

TIMEOUT_SECONDS = 5.0  # for connecting, and for each wait after that
DEADLINE_SECONDS = 10.0  # for all of it: name, connection, what is sent, what is answered
LONGEST_NAME = 253  # of a host, as DNS has it
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
        port = parts.port
    except ValueError as error:
        raise AddressRefused("not a web address") from error
    if port == 0:
        raise AddressRefused("not a port")
    if parts.scheme not in ({"http", "https"} if allows_private else {"https"}):
        raise AddressRefused("only https")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise AddressRefused("not a plain web address")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise AddressRefused("holds other characters than an address does")
    if not _is_name(parts.hostname):
        raise AddressRefused("not a name that a host can have")
    return parts


def _is_name(host: str) -> bool:
    """Whether DNS can carry it: labels of 1 to 63 characters, not more than 253 together."""
    labels = host.removesuffix(".").split(".")
    return len(host) <= LONGEST_NAME and all(0 < len(label) <= 63 for label in labels)


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
    if not addresses:
        raise AddressRefused("a name without an address")
    if not allows_private and not all(is_public(address) for address in addresses):
        raise AddressRefused("not a public address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.hostname, port, path, is_https, str(addresses[0]))


class _PinnedConnection(http.client.HTTPConnection):
    """Connects to the machine that was looked at, under the name that it is asked by.

    At `until` (of the monotonic clock) it is hung up from a thread beside it: a socket's own
    timeout begins anew with each byte, and so does the one of TLS.
    """

    def __init__(self, target: Target, until: float) -> None:
        super().__init__(target.host, target.port, timeout=TIMEOUT_SECONDS)
        self.target, self.until, self.is_late = target, until, False
        self.line: socket.socket | None = None
        self.bell: threading.Timer | None = None

    def connect(self) -> None:
        patience = min(TIMEOUT_SECONDS, self.until - time.monotonic())
        if patience <= 0:
            raise TimeoutError
        plain = socket.create_connection((self.target.address, self.target.port), patience)
        self.sock: Any = plain
        self.line = plain.dup()
        self.bell = threading.Timer(self.until - time.monotonic(), self._hang_up)
        self.bell.daemon = True
        self.bell.start()
        if self.target.is_https:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(plain, server_hostname=self.target.host)

    def _hang_up(self) -> None:
        self.is_late = True
        with suppress(OSError):  # the other side was quicker
            if self.line:
                self.line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        if self.bell and self.line:
            self.bell.cancel()
            self.bell.join()
            self.line.close()
            self.bell = self.line = None


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
    until = time.monotonic() + DEADLINE_SECONDS
    try:
        signed = headers(body, key=key, secret=secret, now=now)
        target = resolve(url, allows_private=allows_private)
    except OSError as error:
        raise NotTaken(type(error).__name__) from error
    except ValueError as error:  # of the codec of host names, or of a secret
        raise AddressRefused("cannot be sent to") from error
    status = _post(_PinnedConnection(target, until), body.encode(), signed)
    if not 200 <= status < 300:
        raise NotTaken(f"HTTP {status}")
    return status


def _post(connection: _PinnedConnection, body: bytes, signed: Mapping[str, str]) -> int:
    """The status that is answered. Raises NotTaken."""
    try:
        connection.request("POST", connection.target.path, body, signed)
        status = connection.getresponse().status
        if connection.is_late:  # hung up on among its headers, it seems to have come to their end
            raise TimeoutError
    except (OSError, http.client.HTTPException) as error:
        said = "too slow" if connection.is_late else type(error).__name__
        raise NotTaken(said) from error
    finally:
        connection.close()
    return status
