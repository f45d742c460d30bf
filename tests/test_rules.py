"""Each alert fires when it should and is quiet when it should, in Prometheus's own engine (`promtool test rules`).

Needs promtool, which comes with Prometheus; CI installs it."""
import shutil
import subprocess

import pytest
import yaml

from og_project.config import root

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed: Debian's package prometheus has it")
RULES = root() / "monitoring/rules"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"] for rule in group["rules"]}
UP = 'haproxy_server_status{proxy="api",server="api-1",state="UP"}'
DOOR = ('haproxy_frontend_http_responses_total{proxy="door",code="5xx"}', 'haproxy_frontend_http_responses_total{proxy="door",code="2xx"}')
SLOW = [f'og_http_request_duration_seconds_bucket{{route="/predict",le="{le}"}}' for le in ("0.1", "1", "+Inf")]
SEEN = {'og_window_predictions{version="3"}': "5000x3000"}
HAPPENED = "0x20 5+0x3000"  # a counter that stood, and rose once
# alert -> series under which it fires, series under which it does not; a minute between two values
CASES = {
    "ServiceDown": ({UP: "0x60"}, {UP: "1x60"}),
    "ReplicaDown": ({'up{job="service",instance="api-1"}': "0x60"}, {'up{job="service",instance="api-1"}': "1x60"}),
    "ManyErrors": ({DOOR[0]: "0+3x60", DOOR[1]: "0+97x60"}, {DOOR[0]: "0+3x60", DOOR[1]: "0+997x60"}),
    "SlowAnswers": (dict(zip(SLOW, ("0+1x60", "0+50x60", "0+50x60"), strict=True)), dict(zip(SLOW, ("0+50x60",) * 3, strict=True))),
    "TrafficStopped": ({'og_predictions_total{version="3"}': "0+60x1440 86400x120"}, {'og_predictions_total{version="3"}': "0+60x1560"}),
    "NoModel": ({"og_model_ready": "0x60"}, {"og_model_ready": "1x60"}),
    "ModelRefused": ({"og_model_refused_total": HAPPENED}, {"og_model_refused_total": "5x60"}),
    "RegistryAway": ({"og_registry_reachable": "0x60"}, {"og_registry_reachable": "1x15 0x5 1x60"}),
    "LookupsStale": ({"og_lookups_fresh": "0x60"}, {"og_lookups_fresh": "1x15 0x20 1x60"}),
    "KeysStale": ({"og_keys_fresh": "0x60"}, {"og_keys_fresh": "1x15 0x3 1x60"}),
    "AliasMovedByHand": ({"og_champion_strayed": "1x60"}, {"og_champion_strayed": "0x60"}),
    "LedgerBroken": ({"og_ledger_faults": "1x60"}, {"og_ledger_faults": "0x60"}),
    "JournalWaits": ({"og_journal_oldest_age_seconds": "0+60x60"}, {"og_journal_oldest_age_seconds": "2x60"}),
    "JournalFills": ({"og_journal_bytes": "9e8x60"}, {"og_journal_bytes": "1e6x60"}),
    "PredictionsLost": ({"og_predictions_lost_total": HAPPENED}, {"og_predictions_lost_total": "5x60"}),
    "ScoreDrift": ({'og_drift_psi{version="3",feature="score"}': "0.4x60"} | SEEN,
                   {'og_drift_psi{version="3",feature="score"}': "0.4x60", 'og_window_predictions{version="3"}': "50x60"}),
    "FeaturesDrift": ({'og_drift_psi{version="3",feature="a"}': "0.4x60", 'og_drift_psi{version="3",feature="b"}': "0.1x60"} | SEEN,
                      {f'og_drift_psi{{version="3",feature="{f}"}}': "0.4x60" if f == "a" else "0.1x60" for f in "abcde"} | SEEN),
    "SourceMissing": ({'og_drift_missing_ratio{version="3",feature="a"}': "0.5x60",
                       'og_drift_missing_reference_ratio{version="3",feature="a"}': "0.1x60"} | SEEN,
                      {'og_drift_missing_ratio{version="3",feature="a"}': "0.5x60",
                       'og_drift_missing_reference_ratio{version="3",feature="a"}': "0.5x60"} | SEEN),
    "UnknownCategories": ({'og_drift_unknown_ratio{version="3",feature="a"}': "0.2x60"} | SEEN,
                          {'og_drift_unknown_ratio{version="3",feature="a"}': "0.001x60"} | SEEN),
    "QualityFell": ({'og_live_quality{version="3",metric="gain"}': "-0.2x60", 'og_live_outcomes{version="3"}': "5000x60"},
                    {'og_live_quality{version="3",metric="gain"}': "-0.2x60", 'og_live_outcomes{version="3"}': "500x60"}),
    "GateRefused": ({"og_retraining_last_passed": "0x60"}, {"og_retraining_last_passed": "1x60"}),
    "RetrainingOverdue": ({"og_retraining_last_success_timestamp_seconds": "-4000000x60"}, {"og_retraining_last_success_timestamp_seconds": "0x60"}),
    "MonitorBlind": ({"og_monitor_last_look_timestamp_seconds": "0x60"}, {"og_monitor_last_look_timestamp_seconds": "0+60x60"}),
    "DiskFull": ({'node_filesystem_avail_bytes{fstype="ext4"}': "5x60", 'node_filesystem_size_bytes{fstype="ext4"}': "100x60"},
                 {'node_filesystem_avail_bytes{fstype="ext4"}': "50x60", 'node_filesystem_size_bytes{fstype="ext4"}': "100x60"}),
    "MemoryShort": ({"node_memory_MemAvailable_bytes": "1x60", "node_memory_MemTotal_bytes": "100x60"},
                    {"node_memory_MemAvailable_bytes": "40x60", "node_memory_MemTotal_bytes": "100x60"}),
    "ContainerMemory": ({"docker_container_mem_usage": "95x60", "docker_container_mem_limit": "100x60"},
                        {"docker_container_mem_usage": "50x60", "docker_container_mem_limit": "100x60"}),
    "ContainerRestarts": ({"docker_container_status_restart_count": "0+1x60"}, {"docker_container_status_restart_count": "0x20 1x60"}),
    "TargetDown": ({'up{job="monitor"}': "0x60"}, {'up{job="monitor"}': "1x60"}),
    "AlertsUndelivered": ({"alertmanager_notifications_failed_total": "0+1x60"}, {"alertmanager_notifications_failed_total": "3x60"}),
}
AT = {"TrafficStopped": "1500m", "ModelRefused": "30m", "PredictionsLost": "30m"}


def test_every_alert_has_a_case_and_every_case_an_alert():
    assert set(CASES) == set(ALERTS)


@pytest.mark.parametrize("alert", CASES)
def test_it_fires_and_it_stays_quiet(alert, tmp_path):
    def case(series: dict[str, str], firing: bool) -> dict:
        asked = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
        expected = [{"labels": "{}", "value": 1}] if firing else []
        found = {"expr": f"{asked} > 0", "eval_time": AT.get(alert, "50m"), "exp_samples": expected}
        return {"interval": "1m", "input_series": [{"series": s, "values": v} for s, v in series.items()], "promql_expr_test": [found]}

    fires, quiet = CASES[alert]
    tests = [case(fires, True), case(quiet, False)]
    place = tmp_path / "test.yml"
    place.write_text(yaml.safe_dump({"rule_files": [f"{RULES}/*.yml"], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", place], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_it_says_how_urgent_it_is_why_and_what_to_do(alert):
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("page", "ticket") and {"summary", "reason", "runbook"} == set(rule["annotations"])
    section = rule["annotations"]["runbook"].split("#")[1]
    runbook = (root() / "docs/runbook.md").read_text().lower()
    assert f"\n## {section}\n" in runbook, f"docs/runbook.md has no section {section}"


def test_the_configurations_are_ones_that_the_servers_take(tmp_path):
    (tmp_path / "rules").symlink_to(RULES)
    config = yaml.safe_load((root() / "monitoring/prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        job.pop("authorization", None)  # its file is a secret of the container
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    done = subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
