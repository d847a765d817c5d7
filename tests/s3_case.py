"""An S3 server on this machine, and a gate before it that fails on demand."""

import contextlib
import http.client
import http.server
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import runs
from kd_jax.buckets import lease, store

LEASE = {lease.SECONDS: "2"}
ENV = {
  "AWS_ACCESS_KEY_ID": "test",
  "AWS_SECRET_ACCESS_KEY": "test",
  "AWS_REGION": "us-east-1",
}


def free_port():
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


@contextlib.contextmanager
def server():
  """The URL of a server with the bucket 'bucket'."""
  port = free_port()
  url = f"http://127.0.0.1:{port}"
  process = subprocess.Popen(
    [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    give_up = time.monotonic() + 60
    while True:
      try:
        ask(url, "PUT", "/bucket")
        break
      except (urllib.error.URLError, ConnectionError):
        assert time.monotonic() < give_up and process.poll() is None
        time.sleep(0.05)
    yield url
  finally:
    process.kill()
    process.wait()


def ask(url, method, path):
  request = urllib.request.Request(url + path, method=method)
  with urllib.request.urlopen(request, timeout=30) as reply:
    return reply.read()


@contextlib.contextmanager
def environment(url):
  """As long as the block lasts, this process talks to the server."""
  given = {**ENV, "AWS_ENDPOINT_URL": url}
  before = {name: os.environ.get(name) for name in given}
  os.environ.update(given)
  store.context.cache_clear()
  try:
    yield
  finally:
    for name, value in before.items():
      os.environ.pop(name) if value is None else os.environ.update(
        {name: value}
      )
    store.context.cache_clear()


class Quiet(http.server.ThreadingHTTPServer):
  """Clients that are killed hang up, which is no news."""

  request_queue_size = 128

  def handle_error(self, *_):
    pass


class Gate:
  """Passes requests on, unless `fault(method, path)` says what to do.

  Attributes:
    url: of the gate.
    fault: returns a status such as 503, 'reset', 'hang' (for long, then
      nothing), 'lost' (it is done, and nobody hears of it), or None to pass on.
    seen: (method, path) of all requests.
  """

  def __init__(self, behind):
    self.fault = lambda method, path: None
    self.seen = []
    host = behind.removeprefix("http://")
    gate = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = "HTTP/1.1"

      def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        gate.seen.append((self.command, self.path))
        fault = gate.fault(self.command, self.path)
        if fault == "lost":
          forward(host, self, body)
        if fault == "hang":
          time.sleep(5)
        if fault in ("hang", "lost", "reset"):
          self.close_connection = True
          self.connection.shutdown(socket.SHUT_RDWR)
        elif fault:
          self.reply(fault, {}, b"")
        else:
          self.reply(*forward(host, self, body))

      def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
          if name.lower() not in ("connection", "content-length", "date"):
            self.send_header(name, value)
        empty = self.command == "HEAD" or status == 304
        length = headers.get("Content-Length") if empty else len(body)
        self.send_header("content-length", str(length or 0))
        self.end_headers()
        self.wfile.write(b"" if empty else body)

      do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

      def log_message(self, *_):
        pass

    self._server = Quiet(("127.0.0.1", 0), Handler)
    self._server.daemon_threads = True
    self.url = f"http://127.0.0.1:{self._server.server_port}"
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.01,)
    )
    self._thread.start()

  def close(self):
    self._server.shutdown()
    self._thread.join()
    self._server.server_close()


class Moments:
  """Kills a process when a request comes, and lets it through or not.

  Args:
    gate: that sees the requests.
    start: starts the process.
  """

  def __init__(self, gate, start):
    self._gate, self._start = gate, start
    self._lock = threading.Lock()

  def at(self, method, part, count, after):
    """Kills at the `count`-th such request; whether it came to that."""
    seen, process = [], self._start()

    def fault(found, path):
      if found != method or part not in path:
        return None
      with self._lock:
        seen.append(path)
        if len(seen) != count:
          return "reset" if len(seen) > count else None
        process.send_signal(signal.SIGKILL)
      return "lost" if after else "reset"

    self._gate.fault = fault
    status, said = runs.finish(process)
    self._gate.fault = lambda *_: None
    assert status == -signal.SIGKILL, said
    return said


def forward(host, request, body):
  connection = http.client.HTTPConnection(host, timeout=30)
  try:
    connection.request(
      request.command, request.path, body, dict(request.headers)
    )
    found = connection.getresponse()
    return found.status, dict(found.headers), found.read()
  finally:
    connection.close()


def download(url, folder):
  """All of a place of a bucket, as files."""
  for key in store.keys(url):
    path = pathlib.Path(folder) / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(store.read(url, key))
  return folder
