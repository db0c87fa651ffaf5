"""A gateway in thirteen lines: two origins, an API key, and no word about the servers behind it."""

from coulee.backends.asyncio import run
from coulee.core import Exchange, Filter, Proxy, Response, respond
from coulee.lb import Cluster


class ApiKey(Filter):
    def request_filter(self, exchange: Exchange) -> Response | None:
        if exchange.request.headers.get("x-api-key") != "s3cret":
            return respond(401, json={"error": "missing or wrong x-api-key"})
        return None

    def response_filter(self, exchange: Exchange, response: Response) -> None:
        response.headers.remove("server")


proxy = Proxy(Cluster("http://127.0.0.1:9000", "http://127.0.0.1:9001"), [ApiKey()])

if __name__ == "__main__":
    run(proxy, listen="127.0.0.1:8000")
