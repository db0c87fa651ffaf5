"""A door before a language model that answers word by word: words are counted, and secrets do not get out."""

from dataclasses import replace

from coulee.backends.asyncio import run
from coulee.core import EventStream, Exchange, Proxy, Request, ServerSentEvent
from coulee.lb import Cluster


class Watched(EventStream):
    event_bytes_max = 64 * 1024

    def server_sent_event(self, exchange: Exchange, event: ServerSentEvent) -> ServerSentEvent | None:
        exchange.tags["words"] = int(str(exchange.tags.get("words", 0))) + len(event.data.split())
        if "s3cret" in event.data:
            return replace(event, data=event.data.replace("s3cret", "[removed]"))
        return None  # as it came

    def expects_events(self, exchange: Exchange, request: Request) -> bool:
        return request.path == "/v1/chat"  # whose clients accept anything


proxy = Proxy(Cluster("http://127.0.0.1:9000"), [Watched()])

if __name__ == "__main__":
    run(proxy, listen="127.0.0.1:8000")
