"Only what somebody vouched for is served: whoever replaces files and fingerprint, in the registry or on the disk, is refused."
import json
import shutil
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st
from processes import wait_until
from sites import model_folder
from test_slot import of, serves

from og_project.cli import og
from og_project.config import settings
from og_project.data.contract import EXAMPLE
from og_project.lifecycle import ledger
from og_project.lifecycle.attestation import attest, attested, new_signer, opened, read_signers, sign, signed_bytes
from og_project.lifecycle.registry import AttestationError, versioned
from og_project.model.estimator import seal, verify
from og_project.store import connect, create


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("keys")
    for name in ("ada", "eve"):
        new_signer(place / name)
    return {name: place / name for name in ("ada", "eve")}


def test_another_program_finds_the_signature_right(keys, tmp_path):
    envelope = sign({"subject": "a version"}, keys["ada"])
    (tmp_path / "signed").write_bytes(signed_bytes(envelope["payloadType"], b64decode(envelope["payload"])))
    (tmp_path / "signature").write_bytes(b64decode(envelope["signatures"][0]["sig"]))
    command = ["openssl", "dgst", "-sha256", "-verify", f"{keys['ada']}.pub", "-signature", "signature", "signed"]
    assert "Verified OK" in subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout


@given(st.data())
def test_no_byte_of_an_envelope_can_be_changed(keys, data):
    known = read_signers(Path(f"{keys['ada']}.pub").read_text())
    envelope = sign({"subject": [{"name": "a", "digest": {"sha256": "0" * 64}}]}, keys["ada"])
    field = data.draw(st.sampled_from(["payload", "sig"]))
    text = envelope["payload"] if field == "payload" else envelope["signatures"][0]["sig"]
    raw = bytearray(b64decode(text))
    raw[int(data.draw(st.floats(0, 1, exclude_max=True)) * len(raw))] ^= data.draw(st.integers(1, 255))  # a signature is not of one length
    changed = b64encode(bytes(raw)).decode()
    forged = envelope | ({"payload": changed} if field == "payload" else {"signatures": [envelope["signatures"][0] | {"sig": changed}]})
    with pytest.raises(AttestationError):
        opened(forged, known)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_no_envelope_is_an_error_of_ours(keys, found):
    with pytest.raises(AttestationError):
        opened(found, read_signers(Path(f"{keys['ada']}.pub").read_text()))


@pytest.fixture
def place(registry, real, site, keys, monkeypatch, tmp_path):
    "A service that trusts ada; gives the site, its settings, the environment, and a version that ada vouched for."
    shutil.rmtree(site.folder / "models")
    (site.folder / "signers.pem").write_text(Path(f"{keys['ada']}.pub").read_text())
    environment = of(registry, OG_SERVE__SIGNERS="signers.pem", OG_ROOT=str(site.folder), OG_STORE__URL=f"chdb://{site.folder / 'data'}")
    for name in ("requirements-serve.txt", "nbs"):
        (site.folder / name).symlink_to(Path(__file__).parents[1] / name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(site.folder)
    version = registry.publish(model_folder(real, tmp_path / "good"))
    attest(settings("local"), versioned(settings("local"), version), keys["ada"])
    return site, environment, version


def test_what_was_replaced_with_its_fingerprint_is_refused(registry, real, place, keys, tmp_path):
    from mlflow import MlflowClient

    site, environment, good = place
    registry.promote(good)
    site.start(**environment)
    mlflow, folder = MlflowClient(registry.url), tmp_path / "evil"
    shutil.copytree(site.folder / "models/versions" / good, folder)
    encoder = json.loads((folder / "encoder.json").read_text()) | {"seed": 666}
    (folder / "encoder.json").write_text(json.dumps(encoder))
    seal(folder)
    taken = registry.publish(folder)  # eve makes a version that is whole, with the attestation of the good one
    run = mlflow.get_model_version("og_project", taken).run_id
    theirs = mlflow.get_model_version("og_project", good).run_id
    copied = mlflow.download_artifacts(theirs, "attestation", str(tmp_path))
    mlflow.log_artifacts(run, copied, "attestation")
    bare = registry.publish(folder)  # and one with none
    strange = registry.publish(folder)  # and one that she signed
    alone = settings("local").model_copy(update={"serve": settings("local").serve.model_copy(update={"signers": None})})
    attest(alone, versioned(alone, strange), keys["eve"])
    for version, reason in ((taken, "it vouches for"), (bare, "nobody vouches"), (strange, "whom serve.signers does not have")):
        registry.promote(version)
        wait_until(lambda version=version: version in httpx.get(site.url + "/model").json()["refused"])
        assert reason in httpx.get(site.url + "/model").json()["refused"][version] and serves(site) == good
    assert httpx.post(site.url + "/predict", json=EXAMPLE).json()["model_version"] == good
    told = CliRunner().invoke(og, ["promote", bare, "--force", "--reason", "a test"])
    assert told.exit_code == 1 and "nobody vouches" in told.output
    promoted = lambda: [change for change in ledger.history(settings("local"))[0] if change.kind == "promote"]
    told = CliRunner().invoke(og, ["promote", bare, "--force", "--reason", "a test", "--key", str(keys["eve"])])
    assert told.exit_code == 1 and "nothing was signed" in told.output and not promoted()
    told = CliRunner().invoke(og, ["attest", good, "--key", str(keys["eve"])])
    assert told.exit_code == 1 and "none of serve.signers: nothing was signed" in told.output  # what ada signed stands
    mlflow.set_model_version_tag("og_project", good, "git_commit", "0" * 40)
    with pytest.raises(AttestationError, match="its git_commit is"):
        attested(settings("local"), versioned(settings("local"), good), verify(site.folder / "models/versions" / good))
    told = CliRunner().invoke(og, ["promote", bare, "--force", "--reason", "a test"], env={"SIGNER_KEY": str(keys["ada"])})
    assert told.exit_code == 0, told.output  # ada has looked at it, and signs
    wait_until(lambda: serves(site) == bare)  # refused before, and looked at again
    assert bare not in httpx.get(site.url + "/model").json()["refused"]

    verified = lambda: CliRunner().invoke(og, ["history", "--verify"])
    assert verified().exit_code == 0, verified().output  # ada signed the ledger's last row, too
    config, store = settings("local"), connect(settings("local").store.url)
    create(store, ledger.ledger_sql())
    row = ledger.write_down(store, ledger.changes(config, store)[-1]._replace(kind="promote", to_version=strange, reason="mine"))
    ledger.anchor(config, row)  # eve writes into the table and into MLflow
    assert verified().exit_code == 1 and "another row was signed" in verified().output
    told = CliRunner().invoke(og, ["rollback", "--reason", "a test", "--key", str(keys["eve"])])
    assert told.exit_code == 1 and "nothing was signed" in told.output and ledger.changes(config, store)[-1] == row
    told = CliRunner().invoke(og, ["rollback", "--reason", "a test"], env={"SIGNER_KEY": str(keys["ada"])})
    assert told.exit_code == 0 and verified().exit_code == 0, verified().output  # ada has looked at it


def test_the_copy_on_the_disk_needs_it_as_well(registry, place):
    site, environment, good = place
    registry.promote(good)
    site.start(**environment)
    site.stop()
    registry.stop()
    try:
        site.start(**environment)  # offline
        assert serves(site) == good
        site.stop()
        folder = site.folder / "models/versions" / good
        encoder = json.loads((folder / "encoder.json").read_text()) | {"seed": 666}
        (folder / "encoder.json").write_text(json.dumps(encoder))
        seal(folder)
        site.start(ready=False, **environment)
        assert serves(site) is None and any("the last copy on the disk cannot serve" in line["message"] for line in site.lines())
    finally:
        registry.start()


def test_keys_are_rotated_and_revoked(registry, real, place, keys, tmp_path):
    site, _, good = place
    config, named = settings("local"), versioned(settings("local"), good)
    fingerprint = named.tags["fingerprint"]
    signers = site.folder / "signers.pem"
    assert attested(config, named, fingerprint)
    both = Path(f"{keys['ada']}.pub").read_text() + Path(f"{keys['eve']}.pub").read_text()
    signers.write_text(both)
    assert attested(config, named, fingerprint)  # a second key is trusted, too
    signers.write_text(Path(f"{keys['eve']}.pub").read_text())
    with pytest.raises(AttestationError, match="whom serve.signers does not have"):
        attested(config, named, fingerprint)
    attest(config, named, keys["eve"])  # whoever is trusted now vouches again
    assert attested(config, named, fingerprint)
    for text, reason in (("", "no public key"), ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "cannot be read")):
        signers.write_text(text)
        with pytest.raises(AttestationError, match=reason):
            attested(config, named, fingerprint)
    signers.unlink()
    with pytest.raises(AttestationError, match="No such file"):
        attested(config, named, fingerprint)


def test_the_bill_of_materials_is_cyclonedx(registry, place, tmp_path):
    from mlflow import MlflowClient

    _, _, good = place
    run = MlflowClient(registry.url).get_model_version("og_project", good).run_id
    bill = Path(MlflowClient(registry.url).download_artifacts(run, "attestation/bom.json", str(tmp_path))).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    found = json.loads(bill)
    folder = Path("models/versions") / good
    assert found["metadata"]["component"]["hashes"][0]["content"] == verify(folder)
    assert any(part["name"] == "lightgbm" for part in found["components"])
