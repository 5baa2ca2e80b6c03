-- For wrk: arguments are the method and a file with one cookie a line, which are sent in turn.
local requests = {}
local count = 0
local at = 0

function init(args)
  for cookie in io.lines(args[2]) do
    count = count + 1
    requests[count] = wrk.format(args[1], nil, { ["Host"] = wrk.headers["Host"], ["Cookie"] = cookie })
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"seconds":%.6f,"ok":%d,"refused":%d,"failed":%d,"latency":%d,"p99":%d}\n',
    summary.duration / 1e6, summary.requests - errors.status, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, latency:percentile(50), latency:percentile(99)))
end
