"""Whether NetworkPolicies let a connection through, as a cluster decides it.

Rules (https://kubernetes.io/docs/concepts/services-networking/network-policies/):
- A pod that no policy chooses for a direction may do anything in that direction.
- One that is chosen may do what any rule of those policies allows, and nothing else.
- A connection needs leave at both its ends. Policies are about the pods of their own namespace.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.docs.manifests import Manifest, of_kind, selects


@dataclass(frozen=True)
class Peer:
    """An end of a connection: a pod, or with an empty namespace an address outside."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = "10.0.0.1"


def allowed(
    manifests: list[Manifest], source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether ``source`` may connect to ``target``."""
    return _leave(manifests, source, target, port, protocol, "Egress") and _leave(
        manifests, target, source, port, protocol, "Ingress"
    )


def _leave(
    manifests: list[Manifest], pod: Peer, other: Peer, port: int, protocol: str, direction: str
) -> bool:
    chosen = [
        policy["spec"]
        for policy in of_kind(manifests, "NetworkPolicy")
        if pod.namespace == policy["metadata"]["namespace"]
        and direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], pod.labels)
    ]
    if not chosen:
        return True
    peers = "to" if direction == "Egress" else "from"
    return any(
        _is_one_of(rule.get(peers), other, pod.namespace)
        and _is_port_of(rule.get("ports"), port, protocol)
        for spec in chosen
        for rule in spec.get(direction.lower(), [])
    )


def _is_one_of(peers: list[dict[str, Any]] | None, pod: Peer, home: str) -> bool:
    if not peers:
        return True
    for peer in peers:
        if "ipBlock" in peer:
            if ipaddress.ip_address(pod.address) in ipaddress.ip_network(peer["ipBlock"]["cidr"]):
                return True
        elif not pod.namespace:
            continue
        elif "namespaceSelector" in peer:
            named = {"kubernetes.io/metadata.name": pod.namespace}
            if selects(peer["namespaceSelector"], named) and selects(
                peer.get("podSelector", {}), pod.labels
            ):
                return True
        elif pod.namespace == home and selects(peer["podSelector"], pod.labels):
            return True
    return False


def _is_port_of(ports: list[dict[str, Any]] | None, port: int, protocol: str) -> bool:
    return not ports or any(
        one["port"] == port and one.get("protocol", "TCP") == protocol for one in ports
    )
