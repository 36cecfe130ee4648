"""What may stand in values: everything that the chart and the server know, and nothing else."""

import json
import re
import subprocess
import sys
import unittest

import tomllib
import yaml

from support import CHART, CLUSTER, FANWIRE, MINIMAL, ROOT, merged, refused, rendered, template, values_of

FILES = {"cert_file": "/certificate", "key_file": "/key"}
APP = {"id": "1", "key": "k", "secret": "s"}
SHUT = {"networkPolicy": {"egress": {"enabled": True}}}
ADDRESS = {"name": "FANWIRE_REDIS__URL", "value": "redis://redis"}
SLEEPING = {"lifecycle": {"preStop": {"sleep": {"seconds": 7}}}}
INGRESS = merged(MINIMAL, {"ingress": {"enabled": True, "hosts": ["ws.example.com"], "tls": [{"hosts": ["*.example.com"]}]}})


def apps(*apps):
    return {"config": {"apps": list(apps)}}


# What is laid upon a set that is right, and what is said of it.
REFUSED = [
    # By the schema: names and types, of the chart and of the server.
    (MINIMAL, {"replicas": 2}, "replicas"),
    (MINIMAL, {"ingress": {"host": "example.com"}}, "host"),
    (MINIMAL, {"replicaCount": "2"}, "replicaCount"),
    (MINIMAL, {"ingress": {"hosts": ["https://example.com"]}}, "hosts"),
    (MINIMAL, {"image": {"tag": 1.0}}, "tag"),
    (MINIMAL, {"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    (MINIMAL, {"extraEnv": [{"name": "A", "value": 1}]}, "extraEnv"),
    (MINIMAL, {"extraEnv": {"A": "1"}}, "extraEnv"),
    (MINIMAL, {"resources": {"memory": "1Gi"}}, "memory"),
    (MINIMAL, {"probes": {"readiness": {"periodSecond": 1}}}, "periodSecond"),
    (MINIMAL, {"httpRoute": {"timeouts": {"request": "1 hour"}}}, "request"),
    (MINIMAL, {"podLabels": {"a": 1}}, "podLabels"),
    (MINIMAL, {"config": {"servre": {}}}, "servre"),
    (MINIMAL, {"config": {"server": {"prot": 1}}}, "prot"),
    (MINIMAL, {"config": {"server": {"port": "6001"}}}, "port"),
    (MINIMAL, {"config": {"server": {"port": 65536}}}, "port"),
    (MINIMAL, {"config": {"drain": {"close_code": 4201}}}, "close_code"),
    (MINIMAL, {"config": {"adapter": {"driver": "kafka"}}}, "driver"),
    (MINIMAL, {"config": {"apps": [{"id": 1, "key": "k", "secret": "s"}]}}, "id"),
    (MINIMAL, {"config": {"apps": [{"id": "1", "key": "k", "secrets": "s"}]}}, "secrets"),
    (MINIMAL, {"config": {"apps": {"id": "1"}}}, "apps"),
    # By the templates: what goes together.
    (MINIMAL, {"config": {"apps": []}}, "config.apps: is empty, so there is nobody to serve"),
    (MINIMAL, apps({"key": "k", "secret": "s"}), "missing property 'id'"),
    (MINIMAL, apps({"id": "1", "secret": "s"}), "config.apps[0].key: is missing"),
    (MINIMAL, apps(APP, {"id": "2", "key": "l"}), "config.apps[1].secret: is missing (or `secret_file`)"),
    (MINIMAL, apps({"id": "1", "keys": [{"key": "k", "secret": "s"}, {"key": "l"}]}), "config.apps[0].keys[1].secret: is missing"),
    (MINIMAL, apps(APP, APP | {"key": "l"}), "config.apps[1].id: another app has the id 1 already"),
    (MINIMAL, apps(APP, APP | {"id": "2"}), "config.apps[1].key: the key k stands there twice"),
    (MINIMAL, apps(APP | {"keys": [{"key": "k", "secret": "t"}]}), "config.apps[0].keys[0].key: the key k stands there twice"),
    (MINIMAL, apps(APP | {"tls_only": True}), "config.apps[0].tls_only: nobody could connect"),
    (INGRESS, apps(APP | {"tls_only": True}), "config.apps[0].tls_only: nobody could connect"),
    (MINIMAL, {"replicaCount": 2}, "2 pods need a broker"),
    (MINIMAL, {"config": {"adapter": {"driver": "redis"}}}, "config.redis.url: is missing"),
    (MINIMAL, {"config": {"adapter": {"driver": "nats"}}}, "config.nats.urls: is missing"),
    (CLUSTER, {"config": {"webhooks": {"queue": "nats"}}}, "the broker is that config.webhooks.queue asks for"),
    (values_of("existing-secret"), SHUT, "networkPolicy.egress.extra: is empty, but where the broker is"),
    (MINIMAL, {"config": {"adapter": {"driver": "redis"}}, "extraEnv": [ADDRESS]} | SHUT, "networkPolicy.egress.extra: is empty"),
    (MINIMAL, {"autoscaling": {"enabled": True}}, "10 pods need a broker"),
    (MINIMAL, {"redis": {"enabled": True}, "nats": {"enabled": True}}, "nodes have one broker"),
    (CLUSTER, {"nats": {"enabled": True}}, "config.adapter.driver: is redis, but `nats.enabled` runs another broker"),
    (CLUSTER, {"redis": {"enabled": True}}, "config.redis.url: stands beside `redis.enabled`"),
    (MINIMAL, {"existingSecret": "mine"}, "config.apps: stands beside `existingSecret`"),
    (MINIMAL, {"tls": {"existingSecret": "mine"}, "config": {"tls": FILES}}, "config.tls.cert_file: stands beside `tls.existingSecret`"),
    (MINIMAL, {"config": {"tls": {"acme": {"domains": ["a.example"], "terms_agreed": True}}}}, "config.tls.acme.domains: is for a single machine"),
    (MINIMAL, {"tls": {"existingSecret": "mine"}, "config": {"tls": {"key_file": "/key"}}}, "config.tls.key_file: stands beside"),
    (MINIMAL, {"config": {"server": {"port": 0}}}, "config.server.port: is 0"),
    (MINIMAL, {"config": {"admin": {"enabled": False}}}, "config.admin.enabled: is false"),
    (MINIMAL, {"config": {"server": {"host": "127.0.0.1"}}}, "config.server.host: is 127.0.0.1"),
    (MINIMAL, {"config": {"admin": {"host": "localhost"}}}, "config.admin.host: is localhost"),
    (CLUSTER, {"config": {"store": {"url": "sqlite:///data/apps.db"}}}, "SQLite cannot be shared"),
    (CLUSTER, {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}, "is above autoscaling.maxReplicas"),
    (CLUSTER, {"autoscaling": {"enabled": True, "cpu": None}}, "has nothing to go by"),
    (CLUSTER, {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}, "resources.requests.cpu"),
    (CLUSTER, {"podDisruptionBudget": {"maxUnavailable": 0}}, "no machine could ever be drained"),
    (CLUSTER, {"podDisruptionBudget": {"minAvailable": 3}}, "is 3 of 3 pods"),
    (CLUSTER, {"podDisruptionBudget": {"minAvailable": "100%"}}, "no machine could ever be drained"),
    (MINIMAL, {"terminationGracePeriodSeconds": 54}, "is 54, but to leave a pod takes up to 55 "),
    (MINIMAL, {"terminationGracePeriodSeconds": 61} | SLEEPING, "is 61, but to leave a pod takes up to 62 "),
    (MINIMAL, {"lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}}}, "lifecycle.preStop.exec: there is neither a shell nor"),
    (MINIMAL, {"minReadySeconds": 700, "progressDeadlineSeconds": 600}, "progressDeadlineSeconds: is 600"),
    (MINIMAL, {"service": {"nodePort": 30080}}, "service.nodePort: means nothing"),
    (MINIMAL, {"ingress": {"enabled": True}}, "ingress.hosts: is empty"),
    (INGRESS, {"ingress": {"hosts": ["ws.example.com", "a.b.example.com"]}}, "ingress.tls: has no certificate for a.b.example.com"),
    (MINIMAL, {"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: is empty"),
    (MINIMAL, {"serviceMonitor": {"enabled": True}, "adminService": {"enabled": False}}, "needs adminService.enabled"),
]


def leaves(values, path=()):
    """The paths of all values that are no sections of the chart's own."""
    own = json.loads((ROOT / "helm/own.schema.json").read_text())["properties"]
    for name in path:
        own = own[name]
    for name, value in values.items():
        inside = own.get(name)
        if isinstance(inside, dict) and isinstance(value, dict) and all(isinstance(key, str) and key in inside for key in value):
            yield from leaves(value, (*path, name))
        elif name != "config":
            yield (*path, name)


def without(values, path):
    """The values but for one."""
    first, *rest = path
    if not rest:
        return {name: value for name, value in values.items() if name != first}
    return {**values, first: without(values[first], rest)}


class ValuesTest(unittest.TestCase):
    def test_schema_and_readme_are_up_to_date(self):
        command = [sys.executable, ROOT / "helm/generate.py", FANWIRE, "--check"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))

    def test_what_is_wrong_is_refused_and_named(self):
        for base, change, said in REFUSED:
            with self.subTest(json.dumps(change)):
                rendered(base)
                self.assertIn(said, refused(merged(base, change)))

    def test_what_is_brought_from_elsewhere_is_not_missing(self):
        open_to_it = {"networkPolicy": {"egress": {"enabled": True, "extra": [{"ports": [{"port": 6379, "protocol": "TCP"}]}]}}}
        secret = {"name": "FANWIRE_APPS__0__SECRET", "valueFrom": {"secretKeyRef": {"name": "apps", "key": "shop"}}}
        driven = {"config": {"adapter": {"driver": "redis"}}}
        for base, change in (
            (MINIMAL, apps({"id": "1", "key": "k"}) | {"extraEnv": [secret]}),
            (MINIMAL, apps({"id": "1", "key": "k"}) | {"extraEnvFrom": [{"secretRef": {"name": "apps"}}]}),
            (MINIMAL, apps({"id": "1"}, {"id": "2"}) | {"extraEnvFrom": [{"secretRef": {"name": "apps"}}]}),
            (MINIMAL, apps({"id": "1", "key": "k", "secret_file": "/etc/fanwire/apps/shop"})),
            (INGRESS, merged(apps(APP | {"tls_only": True}), {"config": {"server": {"trusted_proxies": ["10.0.0.0/8"]}}})),
            (MINIMAL, driven | {"redis": {"enabled": True}}),
            (MINIMAL, driven | {"extraEnv": [ADDRESS]}),
            (MINIMAL, driven | {"extraEnv": [ADDRESS]} | open_to_it),
            (values_of("existing-secret"), open_to_it),
            (MINIMAL, {"terminationGracePeriodSeconds": 62} | SLEEPING),
            (INGRESS, {"ingress": {"tls": [{"secretName": "default"}]}}),
            (INGRESS, {"ingress": {"hosts": ["*.example.com", "b.example.com"]}}),
        ):
            with self.subTest(json.dumps(change)):
                rendered(merged(base, change))

    def test_every_value_does_something(self):
        """Each value of the set `everything` is taken away in turn: the manifests have to show it."""
        everything = values_of("everything")
        whole = template(everything)
        known = set(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
        # What excludes others, or is at its default because others would be in its way.
        elsewhere = {
            ("existingSecret",),
            ("existingSecretKey",),
            ("tls", "existingSecret"),
            *((("nats", key) for key in ("enabled", "image", "password", "resources"))),
            ("image", "digest"),
            ("replicaCount",),
            ("serviceAccount", "create"),
            ("service", "clusterIP"),
            ("ingress", "controller"),
            ("httpRoute", "https"),
            ("podDisruptionBudget", "enabled"),
            ("podDisruptionBudget", "maxUnavailable"),
            ("networkPolicy", "enabled"),
            ("adminService", "enabled"),
        }
        given = set(leaves(everything))
        self.assertEqual(known - elsewhere - given, set(), "values that the set lacks")
        for path in sorted(given):
            # What a rule of the chart would have come to as well.
            if path == ("migrate", "enabled"):
                continue
            with self.subTest(".".join(path)):
                try:
                    changed = template(without(everything, path))
                except AssertionError as error:
                    # It is needed by others, and that is told.
                    self.assertRegex(str(error), "is empty|needs? |means nothing|could ever be drained")
                    continue
                self.assertTrue(whole != changed, "it does nothing")

    def test_what_the_set_of_everything_has_no_room_for_does_something_too(self):
        changes = [
            {"nameOverride": "gateway"},
            {"image": {"digest": "sha256:" + "0" * 64}},
            {"replicaCount": 2},
            {"replicaCount": None},
            {"serviceAccount": {"create": False}},
            {"podDisruptionBudget": {"enabled": False}},
            {"podDisruptionBudget": {"maxUnavailable": "40%"}},
            {"networkPolicy": {"enabled": False}},
            {"networkPolicy": {"egress": {"enabled": True}}},
            {"adminService": {"enabled": False}},
            {"tls": {"existingSecret": "mine"}},
            {"service": {"clusterIP": "None"}},
        ]
        for change in changes:
            with self.subTest(json.dumps(change)):
                self.assertTrue(template(CLUSTER) != template(merged(CLUSTER, change)), "it does nothing")
        ingress = merged(CLUSTER, {"ingress": {"enabled": True, "hosts": ["example.com"]}})
        bare = merged(ingress, {"ingress": {"controller": "none"}})
        self.assertTrue(template(ingress) != template(bare), "ingress.controller does nothing")

    def test_the_chart_is_of_the_version_of_the_server(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
        self.assertEqual(chart["appVersion"], cargo["workspace"]["package"]["version"])

    def test_values_of_the_set_are_described(self):
        readme = (CHART / "README.md").read_text()
        for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
            self.assertIsNotNone(re.search(rf"^\| `{re.escape('.'.join(path))}` \| .* \| .+ \|$", readme, re.MULTILINE), path)
