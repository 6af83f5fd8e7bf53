"""The connections of kafka-python's clients, watched: why one has ended, and none without an end.

kafka-python tells why in its log alone: to its callers everything is a timeout. And it waits
without a limit for a TLS handshake, and on the thread of its network for name servers.
"""

import socket
from collections.abc import Hashable
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread
from typing import Any

from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from streamer.sources.kafka_causes import Causes

LOOK_UP_SECONDS = 3.0
# The other timeouts of an attempt come first: they say more.
GRACE_SECONDS = 0.05


class WatchedClient(KafkaNetClient):  # type: ignore[misc]  # kafka-python has no types
    """What kafka-python's consumers, producers and admins take as `kafka_client`.

    It is their own, but that its connections tell `causes` how they fare, and that a start ends
    at once where every server has refused us for good.
    """

    def __init__(self, **configs: Any) -> None:
        self.causes = Causes()
        net = NetworkSelector(**configs)
        super().__init__(net, _WatchedConnections(net, self.causes, **configs), **configs)

    def explain(self) -> str:
        """Return why no server of the start lets us in, with what to do; empty if none has told."""
        servers = self.cluster.bootstrap_brokers()
        told = {f"{one.host}:{one.port}": self.causes.at(one.node_id) for one in servers}
        if len(set(told.values())) == 1:
            return str(next(iter(told.values())) or "")
        return ", ".join(f"at {where} {cause}" for where, cause in told.items() if cause)


class _WatchedConnections(KafkaConnectionManager):  # type: ignore[misc]
    def __init__(self, net: Any, causes: Causes, **configs: Any) -> None:
        super().__init__(net, **configs)
        self._loop = net
        self._causes = causes
        self._watched: dict[Hashable, Any] = {}

    def get_connection(self, node_id: Any, *args: Any, **options: Any) -> Any:
        """Return the connection to a broker, watched; called on the thread of the network.

        Raises a `KafkaError` while a start is hopeless.
        """
        self._refuse_if_hopeless()
        connection = super().get_connection(node_id, *args, **options)
        if self._watched.get(node_id) is not connection:
            self._watched[node_id] = connection
            self._watch(node_id, connection, options.get("timeout_ms"))
        return connection

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        """Return a way to a broker on which its last words are heard."""
        if self.config["proxy_url"] is None:
            await self._look_up(node.host)
        return _heard_out(await super()._build_transport(node, timeout_at=timeout_at))

    async def _look_up(self, host: str) -> None:
        """Have a name looked up beside the thread of the network, which would stand still.

        A name server that is away takes up to half a minute, and polls wait for that thread.
        Raises `KafkaConnectionError`.
        """
        with suppress(ValueError):
            ip_address(host)
            return
        found = Future()
        Thread(target=_ask_for, args=(host, self._loop, found), daemon=True).start()
        try:
            await self.wait_for(found, LOOK_UP_SECONDS * 1000)
        except KafkaTimeoutError as error:
            msg = f"DNS lookup: no answer about {host} in {LOOK_UP_SECONDS:g} s"
            raise KafkaConnectionError(msg) from error

    def _refuse_if_hopeless(self) -> None:
        servers = [one.node_id for one in self.cluster.bootstrap_brokers()]
        if not self._causes.has_connected and self._causes.are_final(servers):
            msg = "every server has refused us"
            raise KafkaError(msg)

    def _watch(self, node_id: Any, connection: Any, timeout_ms: float | None) -> None:
        connection.init_future.add_callback(lambda _: self._causes.connected())
        # It fails with what has ended the connection, before we were let in or after.
        connection.close_future.add_errback(lambda error: self._causes.failed(node_id, error))
        if timeout_ms is not None and not self._causes.has_connected:
            self._limit(connection, timeout_ms / 1000 + GRACE_SECONDS)

    def _limit(self, connection: Any, seconds: float) -> None:
        """End an attempt that goes on for too long."""

        def give_up() -> None:
            if not connection.init_future.is_done:
                connection.close(KafkaTimeoutError("no connection, or no TLS handshake, in time"))

        timer = self._loop.call_later(seconds, give_up)
        connection.init_future.add_both(lambda _: self._loop.cancel(timer))


def _ask_for(host: str, loop: Any, found: Any) -> None:
    """Settle `found` on the thread of the network; kafka-python asks for the address itself."""
    error = None
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as failed:
        error = KafkaConnectionError(f"DNS lookup: {failed.strerror}")

    async def settle() -> None:
        if error is None:
            found.success(None)
        else:
            found.failure(error)

    with suppress(RuntimeError):  # it is closed: nobody waits any more
        loop.call_soon_threadsafe(settle)


def _heard_out(transport: Any) -> Any:
    """Have a transport hand out what it has received before it tells that the other has left.

    A broker that refuses says why and hangs up: four times in five kafka-python sees both at
    once, and forgets the answer.
    """
    receive = transport._sock_recv  # noqa: SLF001 - there is no other way to what was received

    def receive_first() -> tuple[bytes, Exception | None]:
        received, error = receive()
        return received, None if received else error

    transport._sock_recv = receive_first  # noqa: SLF001 - as above
    return transport
