"""A stand-in for a ClickHouse server, for tests only: ClickHouse's HTTP interface in front of one embedded chDB engine.

It speaks to clickhouse-connect's real HTTP client. It lacks external data and system.query_log. Where it is given a USER, that is the one who may do
all; others are made by CREATE USER ... IDENTIFIED WITH sha256_hash, and may select where anything was granted to select, insert where
that was granted, make temporary tables where that was, and nothing else.
With CONFIG, a file of the server's configuration, it knows the clusters that stand there. Distributed tables are the engine's own, and run where a shard
is this host; nobody replicates, and nobody tells other hosts: "ON CLUSTER" is taken off, ReplicatedMergeTree becomes MergeTree.
usage: python clickhouse_stand_in.py PATH PORT [USER PASSWORD]"""
import base64, gzip, hashlib, json, os, re, sys, tempfile, threading, zlib
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit
import chdb

PATH, PORT = sys.argv[1], int(sys.argv[2])
AUTH = tuple(sys.argv[3:5]) if len(sys.argv) > 4 else None
TRANSPORT = {"database", "query", "session_id", "session_timeout", "session_check", "query_id", "quota_key", "compress", "decompress",
             "wait_end_of_query", "client_protocol_version", "role", "send_progress_in_http_headers", "user", "password", "buffer_size",
             "http_headers_progress_interval_ms", "enable_http_compression", "default_format", "cancel_http_readonly_queries_on_client_close"}
INSERT = re.compile(rb"^\s*(INSERT\s+INTO\s+(?:[^'\"`;]|`[^`]*`|\"[^\"]*\")*?)\s+FORMAT\s+(\w+)(?:[ \t]*\r?\n|\s|$)", re.I)
FMT = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*$", re.I)
CONFIG = os.environ.get("CONFIG")
TARGET = f"file:{PATH}?config-file={CONFIG}" if CONFIG else PATH
ROOT = chdb.connect(TARGET)                       # keeps the engine alive
USERS_FILE = os.path.join(PATH, "users.json")
USERS = json.load(open(USERS_FILE)) if AUTH and os.path.exists(USERS_FILE) else {} # name -> {"hash": ..., "insert": [table]}
if CONFIG: TRANSPORT.add("prefer_localhost_replica") # it has no other way to a shard than this process
DATABASE = os.environ.get("CLICKHOUSE_DB")
if DATABASE: ROOT.query(f"CREATE DATABASE IF NOT EXISTS {DATABASE}", "TabSeparated")
sessions, slock = {}, threading.Lock()
q = lambda v: "'" + str(v).replace("\\", "\\\\").replace("'", "\\'") + "'"

def access(sql):
    "Take a statement about users; True if it was one."
    text = " ".join(sql.decode("utf-8", "replace").split()).rstrip(";")
    if m := re.match(r"(?:CREATE USER IF NOT EXISTS|ALTER USER) (\w+) IDENTIFIED WITH sha256_hash BY '(\w{64})'", text, re.I):
        USERS.setdefault(m[1], {"insert": [], "select": []})["hash"] = m[2]
    elif m := re.match(r"GRANT (SELECT|INSERT) ON ([\w.*]+) TO (\w+)", text, re.I):
        granted = USERS[m[3]][m[1].lower()]
        if m[2] not in granted: granted.append(m[2])
    elif m := re.match(r"REVOKE (SELECT|INSERT) ON ([\w.*]+) FROM (\w+)", text, re.I):
        USERS[m[3]][m[1].lower()] = [one for one in USERS[m[3]][m[1].lower()] if one != m[2]]
    elif m := re.match(r"GRANT CREATE TEMPORARY TABLE\b.* TO (\w+)", text, re.I): USERS[m[1]]["temporary"] = True
    else: return False
    with open(USERS_FILE, "w") as file: json.dump(USERS, file)
    return True

def may(user, sql):
    "Whether a user who is not the first may run this."
    text = " ".join(sql[:2000].decode("utf-8", "replace").split())
    if m := re.match(r"INSERT INTO (?:TABLE )?[`\"]?(?:\w+[`\"]?\.[`\"]?)?(\w+)", text, re.I): return m[1] in USERS[user]["insert"]
    if re.match(r"CREATE TEMPORARY TABLE\b", text, re.I): return USERS[user].get("temporary", False)
    return bool(USERS[user]["select"] and re.match(r"(SELECT|WITH|DESCRIBE|DESC|SHOW|EXPLAIN|EXISTS)\b", text, re.I))

def alone(sql):
    "A statement for all hosts of a cluster as one for this host."
    sql = re.sub(rb" ON CLUSTER '[\w-]+'", b"", sql)
    sql = re.sub(rb"ReplicatedMergeTree\('[^']*', '[^']*'\)", b"MergeTree", sql)
    sql = re.sub(rb", replicated_deduplication_window_seconds = \d+", b"", sql)
    return re.sub(rb"\breplicated_deduplication_window", b"non_replicated_deduplication_window", sql)

def decode(body, enc):
    if enc in ("gzip", "x-gzip"): return gzip.decompress(body)
    if enc == "deflate": return zlib.decompress(body)
    if enc == "lz4": import lz4.frame; return lz4.frame.decompress(body)
    if enc == "zstd":
        import zstandard; return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    if enc == "br": import brotli; return brotli.decompress(body)
    return body

class H(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm, wbufsize = "HTTP/1.1", True, 1 << 16
    def log_message(self, *a): pass
    def reply(self, status, body, headers=()):
        self.send_response(status)
        for k, v in headers: self.send_header(k, v)
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            out = []
            while (n := int(self.rfile.readline().split(b";")[0], 16)):
                out.append(self.rfile.read(n)); self.rfile.readline()
            self.rfile.readline(); return b"".join(out)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))
    def creds(self, p):
        a = self.headers.get("Authorization", "")
        if a.startswith("Basic "): return tuple(base64.b64decode(a[6:]).decode().split(":", 1))
        return (self.headers.get("X-ClickHouse-User", p.get("user", "default")), self.headers.get("X-ClickHouse-Key", p.get("password", "")))
    def do_GET(self):
        u = urlsplit(self.path); p = dict(parse_qsl(u.query, keep_blank_values=True))
        raw = decode(self.body(), self.headers.get("Content-Encoding", ""))
        if u.path in ("/ping", "/replicas_status"): return self.reply(200, b"Ok.\n")
        user, password = self.creds(p)
        known = USERS.get(user, {}).get("hash") == hashlib.sha256(password.encode()).hexdigest()
        if AUTH and (user, password) != AUTH and not known:
            return self.reply(403, b"Code: 516. DB::Exception: default: Authentication failed. (AUTHENTICATION_FAILED)", [("X-ClickHouse-Exception-Code", "516")])
        ctype = self.headers.get("Content-Type", "")
        if ctype.startswith("multipart/form-data"):
            m = BytesParser().parsebytes(b"Content-Type: " + ctype.encode() + b"\r\n\r\n" + raw)
            for part in m.get_payload():
                p[part.get_param("name", header="content-disposition")] = part.get_payload(decode=True).decode()
            raw = b""
        sql = p.get("query", "").encode() + (b"\n" + raw if p.get("query") and raw else raw)
        if AUTH and user != AUTH[0] and not may(user, sql):
            return self.reply(500, f"Code: 497. DB::Exception: {user}: Not enough privileges. (ACCESS_DENIED)".encode(), [("X-ClickHouse-Exception-Code", "497")])
        if CONFIG and re.match(rb"\s*(CREATE|ALTER|DROP|RENAME|GRANT|REVOKE)\b", sql, re.I): sql = alone(sql)
        try:
            res, fmt = (None, None) if AUTH and user == AUTH[0] and access(sql) else self.run(sql, p)
            h = [("X-ClickHouse-Timezone", os.environ.get("TZ", "UTC")), ("X-ClickHouse-Query-Id", p.get("query_id", ""))]
            data = (res.bytes() if res is not None else b"") or b""
            rows, nbytes = (res.rows_read(), res.bytes_read()) if res is not None else (0, 0)
            w = "written" if INSERT.match(sql) else "read"
            h.append(("X-ClickHouse-Summary", json.dumps({f"{w}_rows": str(rows), f"{w}_bytes": str(nbytes), "elapsed_ns": str(int((res.elapsed() if res else 0) * 1e9))})))
            if fmt: h.append(("X-ClickHouse-Format", fmt))
            self.reply(200, data, h)
        except Exception as ex:
            msg = str(ex); msg = msg[max(msg.find("Code: "), 0):]; code = re.search(r"Code: (\d+)", msg)
            self.reply(404 if code and code[1] in ("60", "81") else 500, msg.encode(), [("X-ClickHouse-Exception-Code", code[1] if code else "1002")])
    do_POST = do_GET
    def run(self, sql, p):
        sid = p.get("session_id")
        with slock:
            conn, lock = sessions.setdefault(sid, (chdb.connect(TARGET), threading.Lock())) if sid else (chdb.connect(TARGET), threading.Lock())
        tmp = None
        try:
            with lock:
                if p.get("database"): conn.query(f"USE `{p['database']}`", "TabSeparated")
                for k, v in p.items():      # per-request settings; sessionless handles are thrown away
                    if k not in TRANSPORT and not k.startswith("param_"): conn.query(f"SET {re.sub(r'[^A-Za-z0-9_]', '', k)} = {q(v)}", "TabSeparated")
                params = {k[6:]: v for k, v in p.items() if k.startswith("param_")}
                m = INSERT.match(sql)
                if m and m[2].lower() != b"values" and sql[m.end():]:
                    tmp = tempfile.NamedTemporaryFile(delete=False); tmp.write(sql[m.end():]); tmp.close()
                    return conn.query(f"{m[1].decode()} FROM INFILE {q(tmp.name)} FORMAT {m[2].decode()}", "TabSeparated", params=params), None
                f = FMT.search(sql); fmt = f[1].decode() if f else p.get("default_format", "TabSeparated")
                text = sql.decode("utf-8", "surrogateescape")
                if f: return conn.query(text, fmt, params=params), fmt
                res = conn.query(text, "TabSeparatedWithNames" if fmt == "TabSeparated" else fmt, params=params)
                body = res.bytes() or b""
                if fmt != "TabSeparated" or not body: return res, (fmt if body else None)
                return type("R", (), {"bytes": lambda s: body.partition(b"\n")[2], "rows_read": lambda s: res.rows_read(), "bytes_read": lambda s: res.bytes_read(), "elapsed": lambda s: res.elapsed()})(), fmt
        finally:
            if tmp: os.unlink(tmp.name)
            if not sid: conn.close()

if __name__ == "__main__":
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer((os.environ.get("BIND", "127.0.0.1"), PORT), H).serve_forever()
