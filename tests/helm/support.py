"""The chart as `helm` renders it, and a rendered pod as the kubelet would start it: its variables, its files."""

import base64
import functools
import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml
from helm_python import Chart

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CHART = ROOT / "helm/fanwire"
HELM = HERE / ".bin/helm"
FANWIRE = Path(os.environ.get("FANWIRE", ROOT / "target/debug/fanwire"))
RELEASE = "fanwire"
NAMESPACE = "realtime"
# The value sets of the chart by name.
SETS = {file.name.removesuffix("-values.yaml"): file for file in sorted((CHART / "ci").glob("*-values.yaml"))}
# What helm takes the cluster for, where it renders without one.
OFFLINE = ["--kube-version", "1.33.0"]
DEADLINE_S = 30


def helm(*arguments, fails=False):
    """Runs helm, which is to succeed, or to fail. What it printed: with a failure, what it complained of."""
    nowhere = "/nonexistent"
    environment = {"PATH": os.environ["PATH"], "HOME": nowhere, "KUBECONFIG": nowhere}
    ran = subprocess.run([HELM, *arguments], env=environment, capture_output=True, text=True, check=False)
    if (ran.returncode != 0) != fails:
        raise AssertionError(f"helm {' '.join(map(str, arguments))}\n{ran.stderr}{ran.stdout}")
    return ran.stderr if fails else ran.stdout


class Values:
    """Values that are no file of the chart: written to one for `helm`."""

    def __init__(self, values):
        self.values = values

    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump(self.values, self.file)
        self.file.flush()
        return self.file.name

    def __exit__(self, *_):
        self.file.close()


def merged(under, over):
    """`over` laid upon `under`, as helm lays values upon values, but that `null` stays."""
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return under | {key: merged(under.get(key), value) for key, value in over.items()}


def values_of(name):
    return yaml.safe_load(SETS[name].read_text())


# The least that can be installed, to change something about.
MINIMAL = values_of("minimal")
# The same as a cluster.
CLUSTER = merged(MINIMAL, {"replicaCount": 3, "config": {"adapter": {"driver": "redis"}, "redis": {"url": "redis://redis"}}})


def template(values, *arguments):
    """The manifests of these values, in their text."""
    with Values(values) as file:
        return helm("template", RELEASE, CHART, "--namespace", NAMESPACE, *OFFLINE, "--values", file, *arguments)


def rendered(values, *arguments):
    return [manifest for manifest in yaml.safe_load_all(template(values, *arguments)) if manifest]


@functools.cache
def rendered_set(name):
    return rendered(values_of(name))


def refused(values):
    """What helm complains of."""
    with Values(values) as file:
        return helm("template", RELEASE, CHART, *OFFLINE, "--values", file, fails=True)


def by_helm_4(values):
    """What the engine of Helm 4 renders, by file."""
    return Chart.load(str(CHART)).render(values, name=RELEASE, namespace=NAMESPACE)


def notes(values):
    """What is told after an installation: Helm 3 tells it to nobody who has no cluster."""
    return by_helm_4(values)["fanwire/templates/NOTES.txt"]


def of_kind(manifests, kind):
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def the(manifests, kind, name=None):
    """The one of this kind, or of this kind and name."""
    found = [manifest for manifest in of_kind(manifests, kind) if name in (None, manifest["metadata"]["name"])]
    assert len(found) == 1, f"{kind} {name or ''}: {[manifest['metadata']['name'] for manifest in found]}"
    return found[0]


def server(manifests):
    """The Deployment of Fanwire itself."""
    found = [
        manifest
        for manifest in of_kind(manifests, "Deployment")
        if manifest["metadata"]["labels"]["app.kubernetes.io/component"] == "server"
    ]
    assert len(found) == 1
    return found[0]


def workloads(manifests):
    """Everything that runs pods."""
    return of_kind(manifests, "Deployment") + of_kind(manifests, "Job")


def own_container(pod):
    return pod["containers"][0]


def held(secret):
    """What is in a Secret or ConfigMap."""
    encoded = secret.get("data", {}) if secret["kind"] == "Secret" else {}
    plain = secret.get("stringData", {}) if secret["kind"] == "Secret" else secret.get("data", {})
    return {key: base64.b64decode(value).decode() for key, value in encoded.items()} | plain


def fixtures(name):
    """What a value set expects to be there already."""
    file = HERE / "fixtures" / f"{name}.yaml"
    return list(yaml.safe_load_all(file.read_text())) if file.exists() else []


def new_certificate():
    """A certificate for localhost and its key."""
    with tempfile.TemporaryDirectory() as folder:
        key, file = Path(folder, "key"), Path(folder, "certificate")
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        command = ["openssl", "req", "-x509", *curve, "-keyout", key, "-out", file, *subject]
        subprocess.run(command, check=True, capture_output=True)
        return file.read_text(), key.read_text()


# What fixtures mean by CERTIFICATE and KEY.
certificate = functools.cache(new_certificate)


class Pod:
    """A pod of these manifests, laid out in a folder."""

    def __init__(self, workload, around, folder):
        self.spec = workload["spec"]["template"]["spec"]
        self.container = own_container(self.spec)
        self.around = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in around}
        self.folder = Path(folder)
        self.places = {}
        for mount in self.container["volumeMounts"]:
            assert "subPath" not in mount, f"{mount}: would never change"
            self.places[mount["mountPath"]] = self.folder / mount["mountPath"].strip("/").replace("/", "_")
        for mount in self.container["volumeMounts"]:
            self.place(mount)

    def place(self, mount):
        """Lays a volume out as the kubelet does: the files are links into a folder, which a single link replaces."""
        volume = next(volume for volume in self.spec["volumes"] if volume["name"] == mount["name"])
        place = self.places[mount["mountPath"]]
        version = place / f"..{time.monotonic_ns()}"
        version.mkdir(parents=True)
        if "secret" in volume:
            for key, text in held(self.around["Secret", volume["secret"]["secretName"]]).items():
                version.joinpath(key).write_text(self.mapped(text))
                link = place / key
                if not link.is_symlink():
                    link.symlink_to(f"..data/{key}")
        fresh = place / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(place / "..data")

    def replace(self, secret):
        """Another version of a Secret arrives."""
        name = secret["metadata"]["name"]
        self.around["Secret", name] = secret
        for mount in self.container["volumeMounts"]:
            volume = next(volume for volume in self.spec["volumes"] if volume["name"] == mount["name"])
            if volume.get("secret", {}).get("secretName") == name:
                self.place(mount)

    def mapped(self, text):
        """With the pod's paths as they are here, and what fixtures stand for."""
        paths = "|".join(map(re.escape, self.places))
        text = re.sub(rf"(?<![\w./-])({paths})/", lambda found: f"{self.places[found[1]]}/", text)
        shown, key = certificate()
        return {"CERTIFICATE": shown, "KEY": key}.get(text, text)

    def variables(self):
        """The container's, with what they refer to."""
        found = {}
        for source in self.container.get("envFrom", []):
            for kind, reference in (("Secret", source.get("secretRef")), ("ConfigMap", source.get("configMapRef"))):
                if reference:
                    found |= held(self.around[kind, reference["name"]])
        for variable in self.container["env"]:
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            found[variable["name"]] = (
                held(self.around["Secret", reference["name"]])[reference["key"]] if reference else variable["value"]
            )
        return {name: self.mapped(value) for name, value in found.items()}

    def run(self, *arguments, **changed):
        """Starts the real program with the pod's variables and files, some variables changed."""
        environment = self.variables() | changed
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([FANWIRE, *arguments], env=environment, text=True, **streams)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url, method="GET"):
    """The status and body of an answer; no status while nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return None, str(error)


def eventually(what, question):
    """The answer to a question, as soon as it is not `None` or false."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S} s"
        time.sleep(0.05)
