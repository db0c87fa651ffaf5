"""All cases: see `case.py` for what one is."""

from __future__ import annotations

from tests.http2.case import Case
from tests.http2.cases_flow import FLOW
from tests.http2.cases_frames import FRAMES
from tests.http2.cases_hpack import HPACK
from tests.http2.cases_messages import MESSAGES
from tests.http2.cases_streams import STREAMS

CASES: list[Case] = [*FRAMES, *STREAMS, *FLOW, *MESSAGES, *HPACK]
