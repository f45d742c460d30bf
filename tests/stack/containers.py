"""A stand-in for telegraf's docker input: the same names, from the same engine's socket, at :9273/metrics."""
import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Engine(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/var/run/docker.sock")


def ask(path):
    connection = Engine("engine", timeout=20)
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def lines(container):
    found = ask(f"/containers/{container['Id']}/stats?stream=false")
    name, service = container["Names"][0].lstrip("/"), container["Labels"].get("com.docker.compose.service", "")
    labels = f'container_name="{name}",com_docker_compose_service="{service}"'
    memory, cpu = found.get("memory_stats", {}), found.get("cpu_stats", {})
    yield f'docker_container_mem_usage{{{labels}}} {memory.get("usage", 0)}'
    yield f'docker_container_mem_limit{{{labels}}} {memory.get("limit", 0)}'
    yield f'docker_container_cpu_usage_total{{{labels},cpu="cpu-total"}} {cpu.get("cpu_usage", {}).get("total_usage", 0)}'
    for name, network in (found.get("networks") or {}).items():
        yield f'docker_container_net_rx_bytes{{{labels},network="{name}"}} {network["rx_bytes"]}'
        yield f'docker_container_net_tx_bytes{{{labels},network="{name}"}} {network["tx_bytes"]}'
    sizes = {"Read": 0, "Write": 0}
    for item in found.get("blkio_stats", {}).get("io_service_bytes_recursive") or []:
        sizes[item["op"].capitalize()] = sizes.get(item["op"].capitalize(), 0) + item["value"]
    yield f'docker_container_blkio_io_service_bytes_recursive_read{{{labels},device="total"}} {sizes["Read"]}'
    yield f'docker_container_blkio_io_service_bytes_recursive_write{{{labels},device="total"}} {sizes["Write"]}'
    yield f'docker_container_status_restart_count{{{labels}}} {ask("/containers/" + container["Id"] + "/json")["RestartCount"]}'


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        with ThreadPoolExecutor(20) as pool:
            found = [line for part in pool.map(lambda c: list(lines(c)), ask("/containers/json")) for line in part]
        body = "\n".join([*found, ""]).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("", 9273), Page).serve_forever()
