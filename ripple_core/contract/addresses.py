"""Which addresses a webhook may reach: public ones, and those that the operator lists."""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

IPAddress = IPv4Address | IPv6Address
# `socket.getaddrinfo`, or what stands in for it.
Resolver = Callable[..., Sequence[tuple[Any, ...]]]

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Inside networks that Python counts as public, but served by the cloud's own host: Azure's agent, Oracle's metadata.
_PLATFORM_NETWORKS = (IPv4Network("168.63.129.16/32"), IPv4Network("192.0.0.0/24"))
# Tested in this order, and before `is_global`, which holds for some of them.
_KINDS = (
    ("is_unspecified", "an unspecified address"),
    ("is_loopback", "a loopback address"),
    ("is_link_local", "a link-local address"),
    ("is_multicast", "a multicast address"),
)


class AddressRefused(Exception):
    """A host may not be reached; the message names the host and the reason, but not the addresses of a name."""


def kind_if_not_public(address: IPAddress) -> str | None:
    """What an address is, such as "a loopback address", or None for one in the public internet.

    An IPv6 address that carries an IPv4 one (mapped, 6to4, NAT64) is what the inner one is: that is where it leads.
    """
    meant = _embedded(address) or address
    for attribute, kind in _KINDS:
        if getattr(meant, attribute):
            return kind
    if not meant.is_global:
        return "a private or reserved address"
    # Whatever Python calls global elsewhere in IPv6, site-local addresses among it, is not.
    if isinstance(meant, IPv6Address) and meant not in _GLOBAL_UNICAST:
        return "a reserved address"
    if any(meant in network for network in _PLATFORM_NETWORKS):
        return "an address of the cloud platform"
    return None


@dataclass(frozen=True)
class AllowList:
    """Hosts and networks that may be reached though they are not public.

    Attributes:
        names: host names, in lower case; allowed whatever they resolve to.
        networks: every address inside is allowed, whatever name leads there.
    """

    names: frozenset[str]
    networks: tuple[IPv4Network | IPv6Network, ...]

    @classmethod
    def of(cls, entries: Iterable[str]) -> "AllowList":
        """Sort entries such as "hooks.internal", "10.1.2.3" and "10.0.0.0/8".

        Raises:
            ValueError: for an entry with a slash that is no network.
        """
        names, networks = set(), []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                if "/" in entry:
                    raise ValueError(f"RIPPLE_WEBHOOK_ALLOW: {entry!r} is no network such as 10.0.0.0/8") from None
                names.add(_normal(entry))
        return cls(frozenset(names), tuple(networks))

    def names_host(self, host: str) -> bool:
        """Whether the host itself is listed: its name, or an address inside a network."""
        try:
            return self._has(ipaddress.ip_address(host))
        except ValueError:
            return _normal(host) in self.names

    def resolve(self, host: str, port: int, resolver: Resolver = socket.getaddrinfo) -> list[str]:
        """All addresses of a host, every one of them checked.

        Raises:
            AddressRefused: when the host has no address, or a single one of them may not be reached.
        """
        try:
            found = resolver(host, port, type=socket.SOCK_STREAM)
        # UnicodeError: a label that is too long for a name.
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise AddressRefused(f"{host} does not resolve to an address")
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        if not self.names_host(host):
            for address in addresses:
                kind = kind_if_not_public(address)
                if kind is not None and not self._has(address):
                    raise AddressRefused(f"{host} leads to {kind}, where webhooks may not go")
        return list(dict.fromkeys(str(address) for address in addresses))

    def _has(self, address: IPAddress) -> bool:
        meant = _embedded(address) or address
        return any(meant in network or address in network for network in self.networks)


def _embedded(address: IPAddress) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _normal(name: str) -> str:
    return name.lower().rstrip(".")
