from dataclasses import dataclass
@dataclass
class Header:
    source: object = None
    destination: object = None
    version: int = 2
    alpn: str = ""
    authority: str = ""
    tls: object = None
class TlsInfo:
    def __init__(self, **k): pass
class HeaderError(ValueError): pass
def to_bytes(h):
    import json
    return b"PROXY "+json.dumps([h.source,h.destination]).encode()+b"\r\n"
def read_header(d):
    if not b"PROXY ".startswith(d[:6]) and not d.startswith(b"PROXY "): raise HeaderError("x")
    i=d.find(b"\r\n")
    if i<0:
        if len(d)>107: raise HeaderError("long")
        return None
    import json
    try: s,t=json.loads(d[6:i])
    except Exception: raise HeaderError("bad")
    return Header(tuple(s) if s else None, tuple(t) if t else None), i+2
