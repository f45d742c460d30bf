"""The Helm chart: rendered by Helm's own library, held against the schemas of Kubernetes, and its containers run in Docker with the command,
environment, user and rights that it gives them. No Kubernetes runs here: what schedules, rolls and scales was not tried.

`make chart-test` makes the images and the environment of requirements-chart.txt, and runs this."""
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest
from processes import free_port, wait_until
from servers import wait_for
from sites import model_folder

from og_project.config import root
from og_project.data.contract import EXAMPLE
from og_project.model import estimator
from og_project.serving.guard import new_key

CHART, IMAGE = os.environ.get("CHART", ""), os.environ.get("IMAGE", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHART, reason="CHART names no environment: make chart-test")]
KUBERNETES = ("1.30", "1.37")  # the oldest that the chart takes, and the newest that the schemas know
RENDER = """
import json, sys, helm_python, kubernetes_validate, yaml
asked = json.load(sys.stdin)
with helm_python.Chart.load(asked["chart"]) as chart:
    try: files = chart.render(asked["values"], name="demo", namespace="prod")
    except helm_python.HelmError as error: sys.exit(str(error))
made = [one for name, text in files.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text) if one]
for one in made:
    for version in asked["versions"]: kubernetes_validate.validate(one, version, strict=True)
lint = helm_python.lint(asked["chart"], values=asked["values"])
print(json.dumps({"made": made, "lint": lint}))
"""
GIVEN = {"image": {"repository": IMAGE.partition(":")[0] or "service", "tag": IMAGE.partition(":")[2] or "abc"}}
EVERYTHING = {"autoscaling": {"enabled": True}, "retrain": {"schedule": "0 3 1 * *"}, "trust": "authorities", "settings": {"OG_SERVE__SECONDS": "20"},
              "ingress": {"enabled": True, "host": "a.example", "tlsSecret": "tls", "className": "nginx"},  # pragma: allowlist secret
              "network": {"from": [{"podSelector": {}}], "to": [{"ports": [{"port": 8443}]}]}, "journal": {"storageClass": "fast"}}
NOTHING = {"tables": {"enabled": False}, "monitor": {"enabled": False}}


def rendered(**values) -> dict:
    "What Helm makes of the chart, each of it valid; or what it says."
    asked = {"chart": str(root() / "deploy/chart"), "values": GIVEN | values, "versions": KUBERNETES}
    done = subprocess.run([CHART, "-c", RENDER], input=json.dumps(asked), capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr}


def pods(made: list[dict]) -> Iterator[tuple[str, dict]]:
    "Kind and name of what makes pods, and their spec."
    for one in made:
        spec = one["spec"].get("jobTemplate", {}).get("spec") or one["spec"]
        if "template" in spec:
            yield f"{one['kind']}/{one['metadata']['name']}", spec["template"]["spec"]


RIGHTS = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
OURS = (GIVEN["image"]["repository"], GIVEN["image"]["repository"] + "-pipeline")


@pytest.mark.parametrize("values, count", [({}, 3), (EVERYTHING, 4), (NOTHING, 1)], ids=["as it is", "everything", "nothing"])
def test_it_is_valid_and_gives_no_container_a_right(values, count):
    found = rendered(**values)
    assert "error" not in found, found["error"]
    assert not found["lint"]["errors"] and all(message["severity"] < 2 for message in found["lint"]["messages"]), found["lint"]
    seen = dict(pods(found["made"]))
    assert len(seen) == count
    for name, pod in seen.items():
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"] == RIGHTS and container["image"].partition(":")[0] in OURS, name
            assert container["resources"]["limits"]["memory"], name
            secret = [var["valueFrom"]["secretKeyRef"] for var in container["env"] if "valueFrom" in var]
            assert secret and {one["name"] for one in secret} == {"og-project"}
            assert not [var for var in container["env"] if "PASSWORD" in var["name"] and "value" in var], "no secret in a value"


def test_a_replica_keeps_its_journal_and_leaves_one_by_one():
    made = {one["kind"]: one for one in rendered(replicas=3)["made"]}
    replica = made["StatefulSet"]["spec"]
    assert [claim["metadata"]["name"] for claim in replica["volumeClaimTemplates"]] == ["journal", "models"]
    assert replica["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert replica["updateStrategy"] == {"type": "RollingUpdate"} and replica["replicas"] == 3
    assert made["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    container = replica["template"]["spec"]["containers"][0]
    own_drain = 10
    assert replica["template"]["spec"]["terminationGracePeriodSeconds"] > container["lifecycle"]["preStop"]["sleep"]["seconds"] + own_drain
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_what_scales_by_itself_has_no_number_of_replicas():
    made = {one["kind"]: one for one in rendered(**EVERYTHING)["made"]}
    assert "replicas" not in made["StatefulSet"]["spec"]
    scaler = made["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["kind"] == "StatefulSet"
    assert scaler["metrics"][0]["pods"]["metric"]["name"] in (root() / "og_project/serving/metrics.py").read_text()
    assert {"ports": [{"port": 8443}]} in made["NetworkPolicy"]["spec"]["egress"] and {} not in made["NetworkPolicy"]["spec"]["egress"]


@pytest.mark.parametrize("values, said", [
    ({"image": {"tag": ""}}, "image/tag"), ({"image": {"tag": "latest"}}, "image/tag"), ({"store": {"host": "https://a"}}, "store/host"),
    ({"settings": {"LOG": "x"}}, "invalid propertyName 'LOG'"), ({"ingress": {"enabled": True}}, "ingress.host")])
def test_values_that_cannot_be_are_said(values, said):
    error = rendered(**values).get("error", "nothing")
    assert said in error, error


# --- in Docker ----------------------------------------------------------------------------------------------------------------------------
PASSWORD = "hunter2"  # pragma: allowlist secret
SECRETS = {f"{user}_PASSWORD": PASSWORD for user in ("SERVICE", "PIPELINE", "MONITOR", "LOGS", "ADMIN")} | {"JOURNAL_HASH_KEY": "c" * 32}
NUMBERS = itertools.count()


def docker(*command: str) -> str:
    done = subprocess.run(["docker", *command], capture_output=True, text=True)
    assert done.returncode == 0, f"docker {' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Iterator[int]:
    "A ClickHouse engine behind its HTTP interface, for the containers on this host's network; gives its port."
    port = free_port()
    script = [sys.executable, Path(__file__).parent / "clickhouse_stand_in.py", tmp_path_factory.mktemp("clickhouse"), str(port), "admin", PASSWORD]
    with subprocess.Popen(script) as process:
        wait_for(port, process)
        yield port
        process.kill()


@pytest.fixture
def containers() -> Iterator[list[str]]:
    "The names of those that a test started; they are gone afterwards."
    names: list[str] = []
    yield names
    for name in names:
        subprocess.run(["docker", "rm", "-f", "-v", name], capture_output=True)


def start(container: dict, pod: dict, names: list[str], secrets: dict[str, str], mounts: dict[str, Path] = MappingProxyType({}), **more: str) -> str:
    "Run a container as Kubernetes would: its image, command, environment, user, rights, and nothing that can be written but its volumes."
    user, name = pod["securityContext"]["runAsUser"], f"chart-test-{os.getpid()}-{next(NUMBERS)}"
    given = {var["name"]: var["value"] for var in container["env"] if "value" in var}
    for var in container["env"]:
        wanted = var.get("valueFrom", {}).get("secretKeyRef")
        if wanted and (wanted["key"] in secrets or not wanted.get("optional")):
            given[var["name"]] = secrets[wanted["key"]]
    rights = ["--read-only", "--user", f"{user}:{pod['securityContext']['runAsGroup']}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    places = []
    for mount in container["volumeMounts"]:
        own = mounts.get(mount["name"])
        places += ["-v", f"{own}:{mount['mountPath']}"] if own else ["--tmpfs", f"{mount['mountPath']}:uid={user}"]
    environment = [part for pair in (given | more).items() for part in ("-e", "=".join(pair))]
    command = container.get("command", [])
    entry = ["--entrypoint", command[0]] if command else []
    names.append(name)
    docker("run", "-d", "--name", name, "--network", "host", *rights, *places, *entry, *environment, container["image"], *command[1:],
           *container.get("args", []))
    return name


def of_chart(name: str, **values) -> tuple[dict, dict]:
    "A container, and the pod that it is in."
    pod = dict(pods(rendered(environment="test", mlflow={"url": "http://127.0.0.1:9", "model": "og_project"}, **values)["made"]))[name]
    return pod["containers"][0], pod


@pytest.fixture
def volumes(real, tmp_path) -> dict[str, Path]:
    "A replica's volumes after a restart without a registry: the last champion on its disk."
    model = model_folder(real, tmp_path / "models/versions/1")
    about = {"name": "og_project", "version": "1", "run_id": "", "tags": {"fingerprint": estimator.verify(model)}}
    (tmp_path / "models/versions/champion.json").write_text(json.dumps(about))
    (tmp_path / "journal").mkdir()
    for path in [tmp_path, *tmp_path.rglob("*")]:
        os.chown(path, 10001, 10001)
    for path in tmp_path.parents:
        if "pytest" in str(path):
            path.chmod(0o755)
    return {"models": tmp_path / "models", "journal": tmp_path / "journal"}


def answers(url: str) -> bool:
    return httpx.get(url).status_code == 200


@pytest.mark.skipif(not IMAGE, reason="IMAGE names no image: make chart-test")
def test_its_containers_run_as_it_says(database, containers, volumes):
    store = {"scheme": "http", "host": f"127.0.0.1:{database}", "database": "default"}
    tables = start(*of_chart("Job/demo-tables", store=store), containers, SECRETS)
    wait_until(lambda: docker("inspect", "-f", "{{.State.Status}}", tables) == "exited")
    assert docker("inspect", "-f", "{{.State.ExitCode}}", tables) == "0", docker("logs", tables)

    key, line = new_key("chart-test", "predict")
    ports = {"service": str(free_port()), "monitor": str(free_port())}
    container, pod = of_chart("StatefulSet/demo", store=store)
    service = start(container, pod, containers, SECRETS | {"SERVICE_KEYS": line}, volumes, OG_SERVE__PORT=ports["service"])
    url = f"http://127.0.0.1:{ports['service']}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        wait_until(lambda probe=probe: answers(url + container[probe]["httpGet"]["path"]))
    reply = httpx.post(f"{url}/predict", json=EXAMPLE, headers={"authorization": f"Bearer {key}"})
    assert reply.status_code == 200 and reply.json()["model_version"] == "1"
    docker("stop", "-t", str(pod["terminationGracePeriodSeconds"]), service)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", service) in ("0", "143"), docker("logs", service)

    container, pod = of_chart("Deployment/demo-monitor", store=store)
    start(container, pod, containers, SECRETS, OG_MONITOR__PORT=ports["monitor"])
    wait_until(lambda: answers(f"http://127.0.0.1:{ports['monitor']}{container['livenessProbe']['httpGet']['path']}"))


def test_the_retraining_is_a_script_that_bash_reads():
    pod = dict(pods(rendered(**EVERYTHING)["made"]))["CronJob/demo-retrain"]
    container = pod["containers"][0]
    assert container["command"] == ["bash", "-euc"]
    assert subprocess.run(["bash", "-n", "-c", container["args"][0]], capture_output=True).returncode == 0
    og = f'og() {{ echo "og $*"; [ "$1" != gate ] || return $GATE; }}; HOSTNAME=here; {container["args"][0]}'
    for gate, expected, code in (("0", "og promote --reason retrained by here", 0), ("3", "refused: the champion stays", 0), ("1", "og gate", 1)):
        done = subprocess.run(["bash", "-euc", og], env={"PATH": os.environ["PATH"], "GATE": gate}, capture_output=True, text=True)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (code, expected), done
        assert re.match(r"og run all -p until \d{4}-\d\d-\d\d\nog register\nog gate\n", done.stdout)
