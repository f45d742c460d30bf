"""The dashboards, written down once: `python monitoring/dashboards.py` writes monitoring/grafana/, `--check` only compares.

A panel is a line of its dashboard: title, unit, and queries with their legends. tests/test_stack.py asks each of them of a live Prometheus."""
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

HERE = Path(__file__).parent / "grafana"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
Panel = tuple[str, str, dict[str, str]]  # title, unit, legend -> query
LAST = "[5m]"
BLKIO = "docker_container_blkio_io_service_bytes_recursive"

HEALTH: dict[str, list[Panel]] = {
    "What callers see": [
        ("Requests", "reqps", {"{{route}} {{status}}": "service:requests:rate5m"}),
        ("Latency of a prediction", "s", {"mean": "service:latency:mean_5m",
                                               "half are faster": "service:latency:p50_5m", "99 of 100 are faster": "service:latency:p99_5m"}),
        ("Share of errors at the door", "percentunit", {"5xx": "proxy:errors:ratio5m"}),
        ("Replicas", "short", {"{{server}} ready": 'haproxy_server_status{proxy="api",state="UP"}',
                               "{{instance}} requests under way": "og_http_requests_active"}),
    ],
    "Journal and ClickHouse": [
        ("Predictions that wait for the store", "bytes", {"{{instance}}": "og_journal_bytes"}),
        ("Age of the oldest that waits", "s", {"{{instance}}": "og_journal_oldest_age_seconds"}),
        ("Shipped, and attempts that failed", "cps", {"{{instance}} rows": f"rate(og_journal_shipped_rows_total{LAST})",
                                                     "{{instance}} failures": f"rate(og_journal_ship_failures_total{LAST})"}),
        ("Table sizes", "bytes", {"{{table}}": "og_store_bytes"}),
        ("Table rows", "short", {"{{table}}": "og_store_rows"}),
        ("Parts of tables", "short", {"{{table}}": "og_store_parts"}),
        ("Duration of the monitor's queries", "s", {"{{query}}": "og_store_query_seconds"}),
    ],
    "Jobs": [
        ("Watched parts that answer", "short", {"{{job}} {{instance}}": "up"}),
        ("Registry", "short", {"{{instance}} reaches it": "og_registry_reachable", "{{instance}} has a model": "og_model_ready",
                               "{{instance}} has fresh lookups": "og_lookups_fresh"}),
        ("Age of the last good retraining", "s", {"age": "time() - og_retraining_last_success_timestamp_seconds"}),
        ("Notifications that failed", "cps", {"{{integration}}": f"sum by (integration) (rate(alertmanager_notifications_failed_total{LAST}))"}),
    ],
}

MODEL: dict[str, list[Panel]] = {
    "Speed": [
        ("Predictions", "cps", {"version {{version}}": "service:predictions:rate5m"}),
        ("Time of a batch by phase, mean", "s", {"{{phase}}": f"sum by (phase) (rate(og_phase_duration_seconds_sum{LAST})) / "
                                                            f"sum by (phase) (rate(og_phase_duration_seconds_count{LAST}))"}),
        ("Time of a batch by phase, 99 of 100", "s",
         {"{{phase}}": f"histogram_quantile(0.99, sum by (phase, le) (rate(og_phase_duration_seconds_bucket{LAST})))"}),
        ("Records in a request, mean", "short", {"records": f"sum(rate(og_request_records_sum{LAST})) / sum(rate(og_request_records_count{LAST}))"}),
        ("Records scored together, mean", "short", {"records": f"sum(rate(og_batch_records_sum{LAST})) / sum(rate(og_batch_records_count{LAST}))"}),
    ],
    "The model that serves": [
        ("Loaded", "dateTimeAsIso", {"{{instance}}": "og_model_loaded_timestamp_seconds * 1000"}),
        ("Swaps and refusals", "short", {"{{instance}} swaps": "og_model_swaps_total", "{{instance}} refused": "og_model_refused_total"}),
        ("Age of the lookups", "s", {"{{instance}}": "og_lookups_age_seconds"}),
        ("CPU of a worker", "percentunit", {"{{instance}}": f"rate(og_worker_cpu_seconds{LAST})"}),
        ("Memory of a worker", "bytes", {"{{instance}}": "og_worker_memory_bytes"}),
    ],
}

PREDICTIONS: dict[str, list[Panel]] = {
    "What is said": [
        ("Predictions by answer", "cps", {"{{label}}": f"sum by (label) (rate(og_predictions_total{LAST}))"}),
        ("Scores", "cps", {"up to {{bucket}}": f"sum by (bucket) (rate(og_prediction_scores_total{LAST}))"}),
        ("Mean of what was said in the window", "short", {"version {{version}}": "og_window_mean"}),
        ("Predictions in the window", "short", {"version {{version}}": "og_window_predictions"}),
    ],
    "Drift against the reference": [
        ("PSI of the features that moved most", "short", {"{{feature}}": "topk(8, og_drift_psi)"}),
        ("Jensen-Shannon", "short", {"{{feature}}": "topk(8, og_drift_jensen_shannon)"}),
        ("Share of features that moved (PSI over 0.25)", "percentunit", {"version {{version}}": "monitor:drifted:ratio"}),
        ("Missing more often than in the reference", "percentunit",
         {"{{feature}}": "topk(8, og_drift_missing_ratio - og_drift_missing_reference_ratio)"}),
        ("Values that training never saw", "percentunit", {"{{feature}}": "topk(8, og_drift_unknown_ratio)"}),
        ("Feature values by bucket, the fullest", "cps", {"{{feature}} up to {{bucket}}": f"topk(12, rate(og_feature_values_total{LAST}))"}),
    ],
    "How right it was": [
        ("Live quality", "short", {"{{metric}}": "og_live_quality"}),
        ("Outcomes that came back in the window", "short", {"version {{version}}": "og_live_outcomes"}),
        ("Outcomes reported", "cps", {"{{status}}": f"sum by (status) (rate(og_feedback_total{LAST}))"}),
    ],
    "Retraining and promotions": [
        ("Changes of the champion", "short", {"changes": "og_champion_changes"}),
        ("Champion since", "dateTimeAsIso", {"changed": "og_champion_changed_timestamp_seconds * 1000"}),
        ("The gate on the newest model (1: passed)", "short", {"passed": "og_retraining_last_passed"}),
    ],
}

SERVER: dict[str, list[Panel]] = {
    "Host": [
        ("CPU", "percentunit", {"busy": f'1 - avg(rate(node_cpu_seconds_total{{mode="idle"}}{LAST}))', "load": "node_load1"}),
        ("Memory", "bytes", {"available": "node_memory_MemAvailable_bytes", "total": "node_memory_MemTotal_bytes"}),
        ("Disk that is free", "percentunit",
         {"{{mountpoint}}": 'node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|squashfs"} / node_filesystem_size_bytes'}),
        ("Disk reads and writes", "Bps", {"{{device}} read": f"rate(node_disk_read_bytes_total{LAST})",
                                          "{{device}} written": f"rate(node_disk_written_bytes_total{LAST})"}),
        ("Network", "Bps", {"{{device}} in": f'rate(node_network_receive_bytes_total{{device!~"lo|veth.*"}}{LAST})',
                            "{{device}} out": f'rate(node_network_transmit_bytes_total{{device!~"lo|veth.*"}}{LAST})'}),
    ],
    "Containers": [
        ("CPU (cores)", "short", {"{{container_name}}": f'rate(docker_container_cpu_usage_total{{cpu="cpu-total"}}{LAST}) / 1e9'}),
        ("Memory", "bytes", {"{{container_name}}": "docker_container_mem_usage"}),
        ("Memory, share of the limit", "percentunit", {"{{container_name}}": "docker_container_mem_usage / (docker_container_mem_limit > 0)"}),
        ("Network in", "Bps", {"{{container_name}}": f"sum by (container_name) (rate(docker_container_net_rx_bytes{LAST}))"}),
        ("Network out", "Bps", {"{{container_name}}": f"sum by (container_name) (rate(docker_container_net_tx_bytes{LAST}))"}),
        ("Disk read", "Bps", {"{{container_name}}": f"sum by (container_name) (rate({BLKIO}_read{LAST}))"}),
        ("Disk written", "Bps", {"{{container_name}}": f"sum by (container_name) (rate({BLKIO}_write{LAST}))"}),
        ("Restarts", "short", {"{{container_name}}": "docker_container_status_restart_count"}),
    ],
}

DASHBOARDS = {"health": ("Health", HEALTH), "model": ("Model speed", MODEL), "predictions": ("Predictions", PREDICTIONS),
              "server": ("Server", SERVER)}


def panel(title: str, unit: str, queries: dict[str, str]) -> timeseries.Panel:
    "One picture."
    made = timeseries.Panel().title(title).unit(unit).datasource(SOURCE).span(8).height(7).fill_opacity(8)
    for letter, (legend, query) in zip("ABCD", queries.items(), strict=False):
        made = made.with_target(prometheus.Dataquery().expr(query).legend_format(legend).ref_id(letter))
    return made


def dashboard(name: str, title: str, rows: dict[str, list[Panel]]) -> str:
    "A dashboard as Grafana reads it."
    made = Dashboard(title).uid(f"og-{name}").tags(["og"]).refresh("10s").time("now-3h", "now").timezone("browser").readonly()
    for row, panels in rows.items():
        made = made.with_row(Row(row))
        for about in panels:
            made = made.with_panel(panel(*about))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def queries() -> dict[str, str]:
    "Every query of every panel: `dashboard/panel/legend` -> query."
    return {f"{name}/{title}/{legend}": query for name, (_, rows) in DASHBOARDS.items() for panels in rows.values()
            for title, _, asked in panels for legend, query in asked.items()}


PROVISIONING = {
    "provisioning/datasources/prometheus.yml": """apiVersion: 1
datasources:
  - {name: Prometheus, uid: prometheus, type: prometheus, access: proxy, url: "http://prometheus:9090", isDefault: true, editable: false}
""",
    "provisioning/dashboards/og.yml": """apiVersion: 1
providers:
  - {name: og, type: file, allowUiUpdates: false, options: {path: /etc/grafana/dashboards}}
"""}


def files() -> dict[Path, str]:
    "What Grafana is provisioned with: path -> text."
    made = {HERE / f"dashboards/{name}.json": dashboard(name, *about) for name, about in DASHBOARDS.items()}
    return made | {HERE / name: text for name, text in PROVISIONING.items()}


if __name__ == "__main__":
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv and stale:
        sys.exit(f"{stale[0].name} is not what monitoring/dashboards.py says; run python monitoring/dashboards.py")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files()[path])
