"""docs/kubernetes.md says what happens: its value files are rendered, checked and given to the server, its commands name
what is there, its manifests are what their makers know."""

import json
import os
import re
import shlex
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

from support import CHART, FANWIRE, HELM, OFFLINE, ROOT, Pod, helm, server
from test_form import check

DOCUMENTS = ["docs/kubernetes.md", "helm/fanwire/README.md"]
FENCE = re.compile(r"^```(\S+)(?: (\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A command that would change a cluster, as one that only renders.
RENDERS = [("upgrade --install", "template"), ("install", "template"), ("--wait", ""), ("--timeout 15m", "")]


def fences(document):
    return [match.groups() for match in FENCE.finditer((ROOT / document).read_text())]


def stand_ins(manifests):
    """Secrets that a reader is told to have, with anything in them."""
    pod = server(manifests)["spec"]["template"]["spec"]
    for variable in pod["containers"][0].get("env", []):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference:
            name, key = reference["name"], reference["key"]
            yield {"kind": "Secret", "metadata": {"name": name}, "stringData": {key: "a long random text"}}
    for volume in pod["volumes"]:
        if volume["name"] != "config":
            name = volume["secret"]["secretName"]
            keys = {"tls.crt": "CERTIFICATE", "tls.key": "KEY"} if volume["name"] == "tls" else {"shop": "a long random text"}
            yield {"kind": "Secret", "metadata": {"name": name}, "stringData": keys}


class Documents(unittest.TestCase):
    def test_value_files_are_right_for_kubernetes_and_for_the_server(self):
        shown = [text for language, _, text in fences("docs/kubernetes.md") if language == "json"]
        whole = {"kind": "Secret", "metadata": {"name": "fanwire-configuration"}, "stringData": {"fanwire.json": shown[0]}}
        files = {name: text for language, name, text in fences("docs/kubernetes.md") if language == "yaml" and name}
        self.assertGreater(len(files), 5)
        for name, text in files.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                file = Path(folder, name)
                file.write_text(text)
                out = helm("template", "fanwire", CHART, "--namespace", "realtime", *OFFLINE, "--values", file)
                manifests = [manifest for manifest in yaml.safe_load_all(out) if manifest]
                for manifest in manifests:
                    check(manifest)
                own = [one for one in manifests if "helm.sh/hook" not in one["metadata"].get("annotations", {})]
                pod = Pod(server(manifests), [*own, whole, *stand_ins(manifests)], folder)
                process = pod.run("check-config")
                _, complained = process.communicate()
                self.assertEqual(process.returncode, 0, complained)

    def test_configurations_are_right(self):
        for language, _, text in fences("docs/kubernetes.md"):
            if language == "json":
                with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                    file.write(text)
                    file.flush()
                    command = [FANWIRE, "--config", file.name, "check-config"]
                    ran = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
                    self.assertEqual(ran.returncode, 0, ran.stderr)

    def test_manifests_are_what_their_makers_know(self):
        shown = [yaml.safe_load(text) for language, name, text in fences("docs/kubernetes.md") if language == "yaml" and not name]
        manifests = [manifest for manifest in shown if "kind" in manifest]
        self.assertEqual([manifest["kind"] for manifest in manifests], ["ScaledObject"])
        for manifest in manifests:
            check(manifest)

    def test_commands_of_helm_do_what_they_should(self):
        run = 0
        for document in DOCUMENTS:
            files = {name: text for _, name, text in fences(document) if name}
            files.setdefault("values.yaml", "config: {apps: [{id: '1', key: k, secret: s}]}")
            for language, name, text in fences(document):
                # A script is run as a whole.
                for line in text.splitlines() if language == "sh" and not name else []:
                    if not line.startswith("helm "):
                        continue
                    for word, instead in RENDERS:
                        line = line.replace(word, instead)
                    with self.subTest(line), tempfile.TemporaryDirectory() as folder:
                        values = Path(folder, "values.yaml")
                        values.write_text(files["values.yaml"])
                        line = line.replace("values.yaml", str(values)).replace("helm/fanwire", str(CHART))
                        helm(*shlex.split(line)[1:], *OFFLINE)
                        run += 1
        self.assertEqual(run, 3)

    def test_a_configuration_is_checked_before_it_is_brought(self):
        [script] = [text for _, name, text in fences("docs/kubernetes.md") if name == "check.sh"]
        good = next(text for _, name, text in fences("docs/kubernetes.md") if name == "values.yaml")
        # The image runs this very program with this very argument, and a file at the path that it looks at.
        script, times = re.subn(r'docker run --rm --volume "\$PWD/fanwire.json":/etc/fanwire/config.json \S+', '"$FANWIRE"', script)
        self.assertEqual(times, 1)
        self.assertIn("FANWIRE_CONFIG=/etc/fanwire/config.json", (ROOT / "Dockerfile").read_text())
        # Helm lets both through, and the second one is wrong.
        bad = good.replace("allowed_origins: [shop.example.com]", "allowed_origins: [http//shop.example.com]")
        for values, complaint in ((good, ""), (bad, "apps[0].allowed_origins[0]: ")):
            with self.subTest(complaint), tempfile.TemporaryDirectory() as folder:
                Path(folder, "values.yaml").write_text(values)
                Path(folder, "helm").symlink_to(ROOT / "helm")
                path = f"{HELM.parent}:{os.environ['PATH']}"
                variables = {"PATH": path, "HOME": folder, "FANWIRE": str(FANWIRE), "FANWIRE_CONFIG": "fanwire.json"}
                command = ["bash", "-o", "pipefail", "-ec", script]
                ran = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
                self.assertIn(complaint, ran.stderr)
                self.assertEqual((ran.returncode == 0, ran.stderr == ""), (complaint == "",) * 2, ran.stderr)

    def test_names_in_commands_are_those_of_objects(self):
        values = next(text for _, name, text in fences("docs/kubernetes.md") if name == "values.yaml")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(values)
            file.flush()
            out = helm("template", "fanwire", CHART, "--namespace", "realtime", *OFFLINE, "--values", file.name)
        known = {(one["kind"].lower(), one["metadata"]["name"]) for one in yaml.safe_load_all(out) if one}
        document = (ROOT / "docs/kubernetes.md").read_text()
        named = re.findall(r"\b(deployment|service)/([a-z-]+)", document)
        self.assertGreaterEqual(len(named), 3)
        for kind, name in named:
            self.assertIn((kind, name), known)
        self.assertIn(("service", "fanwire-admin"), known)

    def test_the_least_of_the_chart_s_readme_is_enough(self):
        least, config = (yaml.safe_load(text) for language, _, text in fences("helm/fanwire/README.md") if language == "yaml")
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(least, file)
            file.flush()
            helm("template", "fanwire", CHART, *OFFLINE, "--values", file.name)
        self.assertEqual(config["config"], {k: v for k, v in yaml.safe_load((CHART / "values.yaml").read_text())["config"].items() if k != "apps"})
