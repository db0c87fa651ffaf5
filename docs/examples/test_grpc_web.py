"""What a script in a browser sees of the services, and what they see of it."""

from grpc_web import proxy

from coulee.testing import Exchange

MESSAGE = b"\0\0\0\0\x02hi"
SITE = {"Origin": "https://app.example.com"}
CALL = SITE | {"Content-Type": "application/grpc-web+proto", "Authorization": "Bearer s3cret"}


def test_a_call_there_and_back() -> None:
    x = Exchange(proxy).start("POST", "/hello.Greeter/Hello", headers=CALL, body=MESSAGE)
    assert x.upstream.request.headers["content-type"] == "application/grpc+proto"
    x.upstream.begin(200, headers={"Content-Type": "application/grpc+proto"})
    x.upstream.send(MESSAGE)
    x.upstream.end(trailers={"grpc-status": "0"})
    assert x.response.body == MESSAGE + b"\x80\0\0\0\x10grpc-status: 0\r\n"
    assert x.response.headers["content-type"] == "application/grpc-web+proto"
    assert x.record is not None and x.record.tags["grpc_status"] == 0


def test_no_token() -> None:
    answer = Exchange(proxy).post("/hello.Greeter/Hello", MESSAGE, headers=CALL | {"Authorization": ""})
    assert answer.status == 200 and answer.headers["grpc-status"] == "16"


def test_all_services_are_down() -> None:
    x = Exchange(proxy).down("h2c://10.0.0.1:50051", "h2c://10.0.0.2:50051")
    answer = x.post("/hello.Greeter/Hello", MESSAGE, headers=CALL)
    assert answer.headers["grpc-status"] == "14"
    assert answer.headers["grpc-message"].startswith("upstream_refused: ")


def test_a_browser_asks_whether_the_site_may_call() -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-grpc-web"}
    answer = Exchange(proxy).start("OPTIONS", "/hello.Greeter/Hello", headers=SITE | asks).response
    assert answer.status == 204 and answer.headers["access-control-allow-origin"] == SITE["Origin"]
    elsewhere = {"Origin": "https://evil.example.com"}
    assert Exchange(proxy).start("OPTIONS", "/", headers=elsewhere | asks).response.status == 403
