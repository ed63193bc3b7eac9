#!/bin/bash
# A web server of MTA-STS policies: Python's own, over TLS. https://mta-sts.NAME/.well-known/mta-sts.txt is the file POLICIES/NAME.
#   CERT=chain.pem KEY=key.pem POLICIES=DIR policy.sh start DIR      prints HTTPS=127.0.0.1:PORT; DIR/asked has a name a request
# A file that begins with "HTTP " and a status is answered with that status.
. "$(dirname "$0")/common.sh"
PIDFILE=pid

begin() {
  : > "$DIR/asked"
  cat > "$DIR/serve.py" <<'P'
import http.server, os, ssl, sys
where, policies, cert, key = sys.argv[1:5]
class Policies(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.headers["Host"].removeprefix("mta-sts.")
        with open(where + "/asked", "a") as log: log.write(name + "\n")
        try: text = open(os.path.join(policies, name)).read()
        except OSError: text = "HTTP 404"
        if self.path != "/.well-known/mta-sts.txt": text = "HTTP 404"
        status = int(text.split()[1]) if text.startswith("HTTP ") else 200
        self.send_response(status)
        if status == 301: self.send_header("Location", "https://mta-sts.%s/elsewhere" % name)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Policies)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
open(where + "/port.new", "w").write(str(server.server_address[1])); os.rename(where + "/port.new", where + "/port")
server.serve_forever()
P
  background "$DIR/log" python3 "$DIR/serve.py" "$DIR" "$POLICIES" "$CERT" "$KEY"
  await "$DIR/log" test -s "$DIR/port"
  echo "HTTPS=127.0.0.1:$(cat "$DIR/port")"
}

peer "$@"
