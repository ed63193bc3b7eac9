//! Stage 7, send it: schedule, route, bounce (pure), workers and transports. I/O: network.
