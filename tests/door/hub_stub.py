"""As much of the Hugging Face hub as a push needs, on this machine."""

import base64
import contextlib
import http.server
import json
import threading

COMMIT = "0" * 40


class _Handler(http.server.BaseHTTPRequestHandler):
  def log_message(self, *_):
    pass

  def do_GET(self):
    self._answer({"id": "me/birds", "private": self.server.private})

  def do_POST(self):
    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
    self.server.asked.append((self.path, body))
    self.server.tokens.add(self.headers.get("Authorization"))
    last = self.path.partition("?")[0].split("/")
    if self.server.status != 200:
      self._answer({"error": "no"}, self.server.status)
    elif "preupload" in last:
      files = json.loads(body)["files"]
      usual = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
      self._answer({"files": [{"path": f["path"], **usual} for f in files]})
    elif "commit" in last:
      url = f"{self.server.url}/me/birds/commit/{COMMIT}"
      self._answer({"commitUrl": url, "commitOid": COMMIT})
    else:
      url = f"{self.server.url}/me/birds"
      self._answer({"url": url, "errors": [], "warnings": []})

  def _answer(self, found, status=200):
    data = json.dumps(found).encode()
    self.send_response(status)
    self.send_header("Content-Type", "application/json")
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    self.wfile.write(data)


@contextlib.contextmanager
def running():
  """A server; `asked` has (path, body) of every POST."""
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
  server.url = f"http://127.0.0.1:{server.server_port}"
  server.asked, server.tokens = [], set()
  server.private, server.status = False, 200
  thread = threading.Thread(
    target=server.serve_forever, args=(0.02,), daemon=True
  )
  thread.start()
  yield server
  server.shutdown()
  server.server_close()
  thread.join()


def committed(server):
  """{path: bytes} of the one commit, and the address it was sent to."""
  ((path, body),) = [x for x in server.asked if "/commit/" in x[0]]
  lines = [json.loads(line) for line in body.splitlines()]
  files = [line["value"] for line in lines if line["key"] == "file"]
  return path, {f["path"]: base64.b64decode(f["content"]) for f in files}
