"""A small shop: what an application behind a Coordinator looks like. Needs Python 3.9 or newer, and nothing else.

One instance runs at Central and one at each edge, each with its own data file; or one instance serves all places.

  items    shared data. Written at Central only; every other place copies them (`--copy-from`) and reads its copy.
  users    belong to one edge, their home: profile and wish list live in the data file of that place alone.

What it relies on is said in docs/application.md: every request bears the field `Coordinator`, which says as what this
place is asked. Invariants: nothing is written unless it was asked in the right role; a write and the answer to its
Idempotency-Key are one transaction; what was answered is on disk.
"""

import argparse
import contextlib
import json
import re
import signal
import socket
import sqlite3
import sys
import threading
import urllib.parse
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT_MAX = 64 * 1024  # a wish list, not a library
CHANGES_MAX = 500  # items of one part of a copy
ANSWERS_KEPT = "-7 days"  # for Idempotency-Keys that come again; nobody repeats a request for longer
COPY_EVERY = 1.0  # seconds between two looks at what changed at Central
IDLE_MAX = 60  # seconds; longer than the Coordinator keeps idle connections, so that it is the one who closes them

TABLES = """
CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, content TEXT, likes INTEGER DEFAULT 0, version INTEGER);
CREATE INDEX IF NOT EXISTS items_by_version ON items (version);
CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, profile TEXT, wishlist TEXT DEFAULT '[]', epoch INTEGER);
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, request TEXT, status INTEGER, fields TEXT, content TEXT,
                                    at TEXT DEFAULT CURRENT_TIMESTAMP);
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (at);
"""


class Refusal(Exception):
    """An answer that is an error: a status, and a sentence that helps."""

    def __init__(self, status, why, **fields):
        super().__init__(why)
        self.status, self.fields = status, fields


class Store:
    """The data file. One connection behind a lock: SQLite has one writer anyway, and a shop of this size one disk."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")  # what was answered survives a power cut
        self.db.executescript(TABLES)

    @contextlib.contextmanager
    def transaction(self):
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                self.db.execute("ROLLBACK")
                raise


class Asked:
    """The field `Coordinator` of a request: an RFC 9651 dictionary such as `edge=fr, key="user:448", epoch=1, as=home`."""

    MEMBER = re.compile(r'([a-z*][a-z0-9_.*-]*)=("(?:[^"\\]|\\.)*"|[^,;\s"]+)')

    def __init__(self, text):
        members = {name: value.strip('"') for name, value in self.MEMBER.findall(text or "")}
        self.role = members.get("as")
        self.edge = members.get("edge")
        self.key = urllib.parse.unquote(members.get("key", ""))
        self.epoch = int(members["epoch"]) if members.get("epoch", "").isdecimal() else 0

    def must_be(self, *roles):
        """Two places that write the same thing are what the Coordinator is there to prevent; this is the other half."""
        if self.role not in roles:
            said = f"as={self.role}" if self.role else "without the field Coordinator"
            wanted = " or ".join(f"as={role}" for role in roles)
            raise Refusal(403, f"asked {said}, but only {wanted} may do this: send it through the Coordinator, and look at its route")

    def must_own(self, user):
        self.must_be("home")
        if self.key != f"user:{user}":
            raise Refusal(403, f"asked as the home of {self.key}, not of user:{user}: the route takes its key from elsewhere")


# What the shop does. Each takes the open transaction, what the Coordinator said, the names in the path and the content,
# and returns status, fields and content of the answer.


def list_items(db, asked, content):
    rows = db.execute("SELECT * FROM items ORDER BY id LIMIT 100")
    return 200, {}, {"items": [item(row) for row in rows]}


def show_item(db, asked, content, id):
    row = db.execute("SELECT * FROM items WHERE id = ?", [id]).fetchone()
    if row is None:
        raise Refusal(404, f"there is no item {id} here")  # the route goes on to Central: it may not be copied yet
    return 200, {}, item(row)


def write_item(db, asked, content, id):
    asked.must_be("central", "queued")
    db.execute(
        "INSERT INTO items (id, content, version) VALUES (?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET content = excluded.content, version = excluded.version",
        [id, json.dumps(content), next_version(db)],
    )
    return show_item(db, asked, content, id)


def like_item(db, asked, content, id):
    """Not repeatable by itself: a like that is delivered twice counts once only because of its Idempotency-Key."""
    asked.must_be("central", "queued")
    show_item(db, asked, content, id)
    db.execute("UPDATE items SET likes = likes + 1, version = ? WHERE id = ?", [next_version(db), id])
    return show_item(db, asked, content, id)


def list_changes(db, asked, content, since="0"):
    if not since.isdigit() or len(since) > 18:
        raise Refusal(400, "since is the version of the last change that you have")
    rows = db.execute("SELECT * FROM items WHERE version > ? ORDER BY version LIMIT ?", [int(since), CHANGES_MAX])
    return 200, {}, {"changes": [item(row) for row in rows]}


def register(db, asked, content):
    """The Coordinator takes the new key from Location, and makes this edge its home before the client sees the answer."""
    asked.must_be("local")
    user = str(uuid.uuid4())  # unique everywhere without asking anybody; never a counter per edge
    db.execute("INSERT INTO users (id, profile, epoch) VALUES (?, ?, 1)", [user, json.dumps(content)])
    return 201, {"Location": f"/v1/users/{user}"}, {"user": user, "home": asked.edge, "profile": content}


def show_user(db, asked, content, user):
    asked.must_own(user)
    row = db.execute("SELECT * FROM users WHERE id = ?", [user]).fetchone()
    if row is None:
        raise Refusal(404, f"user {user} has no data here yet")
    wishlist = json.loads(row["wishlist"])
    return 200, {}, {"user": user, "profile": json.loads(row["profile"]), "wishlist": wishlist, "epoch": row["epoch"]}


def write_wishlist(db, asked, content, user):
    """Fenced: a write that an older owner let through late bears a lower epoch than the row, and is refused."""
    asked.must_own(user)
    if not isinstance(content, list):
        raise Refusal(422, 'a wish list is a JSON array, such as ["lamp"]')
    changed = db.execute(
        "INSERT INTO users (id, profile, wishlist, epoch) VALUES (?, 'null', ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET wishlist = excluded.wishlist, epoch = excluded.epoch"
        " WHERE excluded.epoch >= users.epoch",
        [user, json.dumps(content), asked.epoch],
    )
    if changed.rowcount == 0:
        raise Refusal(409, f"user {user} has had a later owner than epoch {asked.epoch}: this write comes too late")
    return show_user(db, asked, content, user)


def health(db, asked, content):
    return 200, {}, {"health": "ok"}


def item(row):
    return {"id": row["id"], "item": json.loads(row["content"]), "likes": row["likes"], "version": row["version"]}


def next_version(db):
    """One version for all items, so that whoever copies asks for what is later than the last one that it has."""
    return db.execute("SELECT coalesce(max(version), 0) + 1 FROM items").fetchone()[0]


ROUTES = [  # the first that fits; GET is also HEAD
    ("GET", r"/healthz", health),
    ("GET", r"/v1/items", list_items),
    ("GET", r"/v1/items/(?P<id>[^/]+)", show_item),
    ("PUT", r"/v1/items/(?P<id>[^/]+)", write_item),
    ("POST", r"/v1/items/(?P<id>[^/]+)/likes", like_item),
    ("GET", r"/v1/changes", list_changes),
    ("POST", r"/v1/users", register),
    ("GET", r"/v1/users/(?P<user>[^/]+)", show_user),
    ("GET", r"/v1/users/(?P<user>[^/]+)/wishlist", show_user),
    ("PUT", r"/v1/users/(?P<user>[^/]+)/wishlist", write_wishlist),
]


def find(method, path):
    """What is to be done, and the names in the path."""
    fits = [(known, match, do) for known, pattern, do in ROUTES if (match := re.fullmatch(pattern, path))]
    if not fits:
        raise Refusal(404, f"the shop has no {path}")
    for known, match, do in fits:
        if known == method or (known, method) == ("GET", "HEAD"):
            return do, {name: urllib.parse.unquote(value) for name, value in match.groupdict().items()}
    raise Refusal(405, f"not with {method}", Allow=", ".join(known for known, _, _ in fits))


class Conversation(BaseHTTPRequestHandler):
    """One connection: reads requests, writes answers, and says in each which instance gave it (`served_by`)."""

    protocol_version = "HTTP/1.1"  # connections are kept; every answer has a Content-Length
    disable_nagle_algorithm = True  # answers are small and awaited
    timeout = IDLE_MAX

    def answer(self):
        try:
            asked = Asked(self.headers.get("Coordinator"))
            content = self.content()  # read in any case: the next request begins behind it
            target = urllib.parse.urlsplit(self.path)
            do, names = find(self.command, target.path)
            if do is list_changes:
                names = {name: value for name, value in urllib.parse.parse_qsl(target.query) if name == "since"}
            self.say(*self.done(do, asked, content, names))
        except Refusal as refusal:
            self.say(refusal.status, refusal.fields, {"error": str(refusal)})
        except sqlite3.Error as error:
            self.log_error("%s", error)
            self.say(503, {"Retry-After": "1"}, {"error": "the data file takes nothing now"})

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = answer

    def done(self, do, asked, content, names):
        """Does it once for each Idempotency-Key: what bears one and comes again gets the first answer again."""
        key = self.headers.get("Idempotency-Key") if self.command in ("POST", "PUT") else None
        request = f"{self.command} {self.path} {json.dumps(content)}"
        with self.server.store.transaction() as db:
            known = key and db.execute("SELECT * FROM answers WHERE key = ?", [key]).fetchone()
            if known and known["request"] != request:
                raise Refusal(422, "this Idempotency-Key came before with another request")
            if known:
                return known["status"], json.loads(known["fields"]), json.loads(known["content"])
            status, fields, content = do(db, asked, content, **names)
            if key:
                row = [key, request, status, json.dumps(fields), json.dumps(content)]
                db.execute("DELETE FROM answers WHERE at < datetime('now', ?)", [ANSWERS_KEPT])
                db.execute("INSERT INTO answers (key, request, status, fields, content) VALUES (?, ?, ?, ?, ?)", row)
            return status, fields, content

    def content(self):
        """The JSON of the request. Refuses what is too long, was cut, or is no JSON."""
        octets = self.octets()
        try:
            return json.loads(octets) if octets else None
        except ValueError:
            raise Refusal(400, "the content is no JSON") from None

    def octets(self):
        """The content by either framing of HTTP/1.1. What cannot be read to its end ends the connection too."""
        keep, self.close_connection = self.close_connection, True
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            octets = b"".join(self.chunks())
        else:
            length = self.headers.get("Content-Length", "0")
            if not re.fullmatch("[0-9]{1,18}", length):
                raise Refusal(400, "Content-Length is no number")
            octets = self.exactly(int(length))
        self.close_connection = keep
        return octets

    def chunks(self):
        left = CONTENT_MAX
        while True:
            size = self.rfile.readline(100).split(b";")[0].strip()
            if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size):
                raise Refusal(400, "the content is cut")
            if int(size, 16) == 0:
                break
            left -= int(size, 16)
            yield self.exactly(int(size, 16), left)
            self.rfile.readline(3)
        while self.rfile.readline(CONTENT_MAX).strip():
            pass  # trailers

    def exactly(self, size, left=0):
        if size > CONTENT_MAX or left < 0:
            raise Refusal(413, f"at most {CONTENT_MAX} octets")
        octets = self.rfile.read(size)
        if len(octets) < size:
            raise Refusal(400, "the content is cut")
        return octets

    def say(self, status, fields, content):
        octets = (json.dumps({"served_by": self.server.name, **content}, ensure_ascii=False) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(octets)))
        for name, value in fields.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(octets)

    def send_error(self, code, message=None, explain=None):
        """What http.server itself refuses, in the form of all other errors."""
        self.close_connection = True
        self.say(code, {}, {"error": message or self.responses.get(code, ("refused",))[0]})

    def log_request(self, code="-", size="-"):
        print(f"{self.server.name}  {self.command} {self.path}  {code}  {self.headers.get('Coordinator', '')}", flush=True)


class Shop(ThreadingHTTPServer):
    """A thread for each connection; a stop lets each finish its request."""

    daemon_threads = False  # server_close waits for them
    request_queue_size = 128

    def __init__(self, address, name, store):
        super().__init__(address, Conversation)
        self.name, self.store, self.open = name, store, set()

    def process_request(self, request, client):
        self.open.add(request)
        super().process_request(request, client)

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client):
        """A client that goes away is no fault of ours; anything else is."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client)

    def finish(self):
        """No connection gets another request; what is being answered is answered."""
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        self.server_close()


def copy_items(store, url, stopping):
    """Copies what changed at Central, in its order. An error is met by trying again: what was copied stays readable."""
    while not stopping.wait(COPY_EVERY):
        with contextlib.suppress(OSError, ValueError, KeyError, sqlite3.Error):
            while copy_part(store, url) == CHANGES_MAX and not stopping.is_set():
                pass


def copy_part(store, url):
    with store.lock:
        since = next_version(store.db) - 1
    with urllib.request.urlopen(f"{url}/v1/changes?since={since}", timeout=5) as answer:
        changes = json.load(answer)["changes"]
    rows = [(one["id"], json.dumps(one["item"]), one["likes"], one["version"]) for one in changes]
    if rows:
        with store.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO items (id, content, likes, version) VALUES (?, ?, ?, ?)", rows)
    return len(rows)


def main():
    words = argparse.ArgumentParser(description="A small shop, behind a Coordinator.")
    words.add_argument("--port", type=int, default=3000, help="where it listens, on loopback; 0 = a free one")
    words.add_argument("--data", default="shop.db", help="its data file, of its own; made if it is not there")
    words.add_argument("--name", default="shop", help="what answers say in served_by")
    words.add_argument("--copy-from", metavar="URL", help="copy the items from there: Central's shop, or the edge's own door")
    words = words.parse_args()
    store, stopping = Store(words.data), threading.Event()
    shop = Shop(("127.0.0.1", words.port), words.name, store)
    if words.copy_from:
        threading.Thread(target=copy_items, args=(store, words.copy_from.rstrip("/"), stopping), daemon=True).start()
    for stop in (signal.SIGTERM, signal.SIGINT):
        # `shutdown` waits for the loop below, which the thread of the signal is in.
        signal.signal(stop, lambda *_: threading.Thread(target=shop.shutdown).start())
    print(f"{words.name} listens on http://127.0.0.1:{shop.server_port}", flush=True)
    shop.serve_forever(poll_interval=0.1)
    stopping.set()
    shop.finish()
    with store.lock:
        store.db.close()


if __name__ == "__main__":
    main()
