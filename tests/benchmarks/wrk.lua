-- wrk's script: with METHOD and SIZE as its arguments it sends a body; wrk's output it ends with one JSON line of exact
-- counts, since wrk's own summary is rounded.
function init(args)
  if args[1] then
    wrk.method = args[1]
    wrk.body = string.rep("x", tonumber(args[2]))
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests": %.0f, "bytes": %.0f, "errors": %.0f}\n',
    summary.requests, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout))
end
