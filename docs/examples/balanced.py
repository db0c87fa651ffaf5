"""Six origins in two zones: the one with the fewest requests gets the next, and what fails is left out for a while."""

from coulee.backends.asyncio import run
from coulee.core import Config, Proxy
from coulee.core.config import Retry
from coulee.lb import Cluster, Endpoint, HealthCheck, Http, LeastRequests

cluster = Cluster(
    *[Endpoint(f"http://10.0.0.{at}:80", name=f"a{at}", zone="eu" if at < 4 else "us") for at in range(1, 7)],
    policy=LeastRequests(),
    health=HealthCheck(Http(path="/health"), interval_s=5.0),
)

proxy = Proxy(cluster, config=Config(retry=Retry(statuses=(502, 503), try_timeout_s=2.0)))

if __name__ == "__main__":
    run(proxy, listen="127.0.0.1:8000")
