"""What `helm` makes of the chart is well formed: for the linter, for Kubernetes, for the operators whose resources it uses."""

import functools
import re
import tarfile
import tempfile
import unittest
from pathlib import Path

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils
import yaml

from support import CHART, HERE, OFFLINE, SETS, by_helm_4, helm, rendered_set, template, values_of

# It would read its schemas anew with each manifest.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
# From the oldest that `Chart.yaml` allows.
KUBERNETES = ["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
# Resources that are not of Kubernetes itself, and the definitions of their makers.
CUSTOM = {
    "HTTPRoute": "gateway.networking.k8s.io_httproutes.yaml",
    "ServiceMonitor": "monitoring.coreos.com_servicemonitors.yaml",
    "ScaledObject": "keda.sh_scaledobjects.yaml",
}


def strict(schema):
    """A schema that knows no keys but those it names, as the API server drops or refuses them."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {word: strict(value) for word, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        inner["additionalProperties"] = False
    return inner


def custom_schema(kind, api_version):
    definition = yaml.safe_load((HERE / ".crds" / CUSTOM[kind]).read_text())
    version = api_version.split("/")[1]
    served = next(entry for entry in definition["spec"]["versions"] if entry["name"] == version and entry["served"])
    properties = served["schema"]["openAPIV3Schema"]["properties"]
    # What every object has is not spelt out in definitions.
    return strict({"type": "object", "properties": {**properties, "metadata": {}}, "required": ["spec"]})


def check(manifest, kubernetes=KUBERNETES):
    """Raises what is wrong with a manifest."""
    if manifest["kind"] in CUSTOM:
        jsonschema.validate(manifest, custom_schema(manifest["kind"], manifest["apiVersion"]))
        return
    for version in kubernetes:
        kubernetes_validate.validate(manifest, version, strict=True)


class Form(unittest.TestCase):
    def test_lint(self):
        for name, file in SETS.items():
            with self.subTest(name):
                helm("lint", "--strict", CHART, *OFFLINE, "--values", file)

    def test_manifests_are_what_kubernetes_knows(self):
        for name in SETS:
            for manifest in rendered_set(name):
                with self.subTest(name, kind=manifest["kind"], name=manifest["metadata"]["name"]):
                    check(manifest)

    def test_what_is_wrong_with_a_manifest_is_found(self):
        """Or the test above would prove nothing."""
        every = {manifest["kind"]: manifest for manifest in rendered_set("everything")}
        for kind in ["Deployment", "Ingress", "HorizontalPodAutoscaler", "NetworkPolicy", *list(CUSTOM)[:2]]:
            with self.subTest(kind), self.assertRaises(Exception):
                check({**every[kind], "spec": {**every[kind]["spec"], "unknown": 1}})

    def test_helm_4_renders_the_same(self):
        """By the engine of Helm 4, which is used as a library here."""
        for name in SETS:
            with self.subTest(name):
                files = by_helm_4(values_of(name))
                four = [part for file, text in files.items() if file.endswith(".yaml") for part in yaml.safe_load_all(text)]
                three = list(yaml.safe_load_all(template(values_of(name))))
                key = lambda manifest: (manifest["kind"], manifest["metadata"]["name"])
                self.assertEqual(sorted(filter(None, four), key=key), sorted(filter(None, three), key=key))

    def test_the_package_holds_what_it_takes_and_no_more(self):
        with tempfile.TemporaryDirectory() as folder:
            helm("package", CHART, "--destination", folder)
            [package] = Path(folder).iterdir()
            with tarfile.open(package) as packed:
                names = {name.removeprefix("fanwire/").split("/")[0] for name in packed.getnames()}
        expected = {"Chart.yaml", "README.md", "templates", "values.schema.json", "values.yaml", ".helmignore"}
        self.assertEqual(names, expected)

    def test_whole_numbers_are_written_as_such(self):
        for name in SETS:
            self.assertIsNone(re.search(r"[0-9]e\+[0-9]", template(values_of(name))), name)

    def test_names_are_short_enough_whatever_the_release_is_called(self):
        values = {**values_of("trial-redis"), "fullnameOverride": "f" * 60, "migrate": {"enabled": True}}
        for manifest in yaml.safe_load_all(template(values)):
            self.assertLessEqual(len(manifest["metadata"]["name"]), 63)
