-- Makes wrk end its output with one JSON line of exact counts; its own summary is rounded.
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests": %.0f, "bytes": %.0f, "errors": %.0f}\n',
    summary.requests, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout))
end
