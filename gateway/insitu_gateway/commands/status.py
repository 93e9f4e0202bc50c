"""``insitu-gateway status``: what the running gateway says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insitu_access.cli import Format, FormatOption, print_facts

from insitu_gateway.commands.arguments import DEFAULT_CONFIG, ConfigOption

if TYPE_CHECKING:
    from insitu_proto.messages import GatewayStatus, NodeStatus

    from insitu_gateway.config import Config

_TIMEOUT_S = 5.0


def status(config: ConfigOption = DEFAULT_CONFIG, format_: FormatOption = Format.TEXT) -> None:
    """Show which nodes are connected and how many requests are open. Asks the gateway that runs on this machine.

    \b
    Example:
      insitu-gateway status --config gateway.toml --format json
    """
    from insitu_gateway.config import load_config

    print_facts(_facts(_fetch(load_config(config))), format_)


def _fetch(config: Config) -> GatewayStatus:
    import grpc
    from insitu_access.files import read_file
    from insitu_access.meeting import NO_DETOUR
    from insitu_privacy.errors import ConfigInvalid, Unavailable
    from insitu_proto import wire
    from insitu_proto.status import from_rpc
    from insitu_proto.v1 import insitu_pb2 as pb
    from insitu_proto.v1 import insitu_pb2_grpc as stubs

    where = config.state / "operations"
    try:
        target = read_file(where).decode().strip()
    except ConfigInvalid as error:
        raise Unavailable("INSITU-GATEWAY-UNREACHABLE", address=where) from error
    with grpc.insecure_channel(target, options=NO_DETOUR) as channel:
        try:
            return wire.from_status(stubs.OperationsStub(channel).Status(pb.StatusRequest(), timeout=_TIMEOUT_S))
        except grpc.RpcError as error:
            raise from_rpc(error, target) from None


def _facts(found: GatewayStatus) -> dict[str, object]:
    return {
        "gateway": found.gateway_id,
        "manifest_version": found.manifest_version,
        "nodes": [_node(node) for node in found.nodes],
        "requests": dict(found.requests),
    }


def _node(node: NodeStatus) -> dict[str, object]:
    return {
        "id": node.id,
        "connected": node.connected,
        "last_seen": node.last_seen.isoformat() if node.last_seen else None,
        "manifest_version": node.manifest_version or None,
        "software": node.software or None,
    }
