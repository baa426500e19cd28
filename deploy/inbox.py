import os
from http.server import *
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"[]")
    def log_message(self,*a): pass
HTTPServer(("127.0.0.1", int(os.environ.get("INBOX_HTTP_PORT") or os.environ["STRIPE_PORT"])), H).serve_forever()
