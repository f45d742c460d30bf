"""Where a chat or a pager would be: keeps what Alertmanager posts, and shows it to whoever asks."""
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEPT = []


class Page(BaseHTTPRequestHandler):
    def do_POST(self):
        KEPT.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[" + b",".join(KEPT) + b"]")

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("", 9999), Page).serve_forever()
