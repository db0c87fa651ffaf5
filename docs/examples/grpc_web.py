"""A door for browsers in front of services that speak gRPC: calls of gRPC-Web from one site, and only with a token."""

from coulee.backends.asyncio import run
from coulee.core import Exchange, ExchangeError, Filter, GrpcWeb, Proxy
from coulee.lb import Cluster


class Token(Filter):
    def request_filter(self, exchange: Exchange) -> None:
        if exchange.request.headers.get("authorization") != "Bearer s3cret":
            raise ExchangeError("bad_request", "missing or wrong token", status=401)  # grpc-status 16, UNAUTHENTICATED


services = Cluster("h2c://10.0.0.1:50051", "h2c://10.0.0.2:50051")

proxy = Proxy(services, [GrpcWeb("https://app.example.com"), Token()])

if __name__ == "__main__":
    run(proxy, listen="127.0.0.1:8000")
