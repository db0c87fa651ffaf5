"""A router for TLS that holds no key: the name that a client asks for says where it goes, and nothing is decrypted."""

from coulee.backends.asyncio import run
from coulee.core import BySni, ExchangeError, Tunnel, TunnelExchange, TunnelFilter
from coulee.lb import Cluster

shops = Cluster("http://10.0.1.1:443", "http://10.0.1.2:443")


class OnlyTls(TunnelFilter):
    def connect(self, exchange: TunnelExchange) -> None:
        if not exchange.is_tls:
            raise ExchangeError("misdirected", "this port is for TLS")

    def logging(self, exchange: TunnelExchange) -> None:
        exchange.tags["protocols"] = ", ".join(exchange.alpn)


tunnel = Tunnel(
    BySni({"shop.example": shops, "*.shop.example": shops, "mail.example": "10.0.2.1:993"}, default="10.0.9.9:443"),
    filters=[OnlyTls()],
)

if __name__ == "__main__":
    run(tunnel, listen="0.0.0.0:443", reporter=print)
