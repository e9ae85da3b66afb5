"""Which addresses may be reached, in every form in which they can be written."""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripple_core.contract.addresses import AddressRefused, AllowList, kind_if_not_public

FORBIDDEN_IPV4 = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    *("192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4"),
    *("240.0.0.0/4", "255.255.255.255/32", "168.63.129.16/32"),
]
FORBIDDEN_IPV6 = [
    *("::/128", "::1/128", "::/96", "100::/64", "64:ff9b:1::/48", "2001::/32", "2001:db8::/32"),
    *("fc00::/7", "fd00:ec2::254/128", "fe80::/10", "fec0::/10", "ff00::/8"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.0", "100.128.0.0", "169.253.255.255", "2606:4700::1111"]


def forms(address: IPv4Address) -> list[IPv4Address | IPv6Address]:
    """The address itself, mapped, in 6to4 and in NAT64."""
    bits = int(address)
    mapped, nat64 = int(IPv6Address("::ffff:0:0")) | bits, int(IPv6Address("64:ff9b::")) | bits
    return [address, IPv6Address(mapped), IPv6Address(0x2002 << 112 | bits << 80), IPv6Address(nat64)]


def inside(networks: list[str]) -> st.SearchStrategy[Any]:
    return st.sampled_from(networks).flatmap(lambda network: st.ip_addresses(network=ip_network(network)))


def resolver(*addresses: str) -> Any:
    return lambda _host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in addresses]


@given(inside(FORBIDDEN_IPV4))
def test_every_forbidden_ipv4_address_is_refused_in_every_form(address: IPv4Address) -> None:
    assert all(kind_if_not_public(form) for form in forms(address))


@given(inside(FORBIDDEN_IPV6))
def test_every_forbidden_ipv6_address_is_refused(address: IPv6Address) -> None:
    assert kind_if_not_public(address)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_pass(text: str) -> None:
    address = ip_address(text)
    for form in forms(address) if isinstance(address, IPv4Address) else [address]:
        assert kind_if_not_public(form) is None


@given(inside(["10.1.0.0/16"]))
def test_a_listed_network_may_be_reached_in_every_form_and_its_neighbour_may_not(address: IPv4Address) -> None:
    allow = AllowList.of(["10.1.0.0/16"])
    for form in forms(address):
        assert allow.resolve("hook.example", 443, resolver(str(form))) == [str(form)]
    for form in forms(address + 2**16):
        with pytest.raises(AddressRefused):
            allow.resolve("hook.example", 443, resolver(str(form)))


def test_one_bad_address_among_good_ones_refuses_the_host() -> None:
    with pytest.raises(AddressRefused, match=r"rebind\.example leads to a private"):
        AllowList.of([]).resolve("rebind.example", 443, resolver("8.8.8.8", "10.0.0.1"))


def test_the_addresses_behind_a_name_are_not_told() -> None:
    with pytest.raises(AddressRefused) as refusal:
        AllowList.of([]).resolve("hook.example", 443, resolver("10.77.0.1"))
    assert "10.77" not in str(refusal.value)


@pytest.mark.parametrize("host", ["hook.internal", "HOOK.internal", "hook.internal."])
def test_a_listed_name_may_lead_anywhere(host: str) -> None:
    assert AllowList.of(["Hook.Internal"]).resolve(host, 80, resolver("127.0.0.1")) == ["127.0.0.1"]


def test_a_listed_name_allows_no_other_name() -> None:
    for host in ("evil-hook.internal", "a.hook.internal", "hook.internal.example"):
        with pytest.raises(AddressRefused):
            AllowList.of(["hook.internal"]).resolve(host, 80, resolver("127.0.0.1"))


def test_entries_are_names_addresses_and_networks() -> None:
    allow = AllowList.of(["hook.internal", "10.1.2.3", "10.2.9.9/16", "fd00::/8"])
    networks = (IPv4Network("10.1.2.3/32"), IPv4Network("10.2.0.0/16"), IPv6Network("fd00::/8"))
    assert (allow.names, allow.networks) == ({"hook.internal"}, networks)


def test_an_entry_that_is_almost_a_network_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"RIPPLE_WEBHOOK_ALLOW: '10\.0\.0\.0/33'"):
        AllowList.of(["10.0.0.0/33"])
