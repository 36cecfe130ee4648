"""What the manifests mean together: selectors find pods, ports exist, names lead somewhere, pods have time to leave."""

import json
import re
import unittest
from itertools import chain

from support import (
    CLUSTER,
    MINIMAL,
    ROOT,
    SETS,
    fixtures,
    held,
    merged,
    notes,
    of_kind,
    own_container,
    rendered,
    rendered_set,
    server,
    template,
    the,
    values_of,
    workloads,
)

# What leaving takes at most beside delay and drain, as the server says it.
LEAVING_S = int(re.search(r"LEAVING_S: u32 = (\d+);", (ROOT / "src/config/drain.rs").read_text())[1])
# And what is before the signal.
SPARE_S = 5


def pods(manifests):
    """The template of each pod, by the name of what runs it."""
    return {workload["metadata"]["name"]: workload["spec"]["template"] for workload in workloads(manifests)}


def selected(manifests, labels):
    """Whose pods have these labels."""
    return [name for name, pod in pods(manifests).items() if labels.items() <= pod["metadata"]["labels"].items()]


def ports(pod):
    """The container ports of a pod by name."""
    return {port["name"]: port["containerPort"] for container in pod["spec"]["containers"] for port in container["ports"]}


def every_set(test):
    """Runs a test for the manifests of each value set."""

    def run(self):
        for name in SETS:
            with self.subTest(name):
                test(self, name, rendered_set(name))

    return run


def policy_ports(rules):
    """The numbers of the ports that rules of a NetworkPolicy name."""
    return {port["port"] for rule in rules for port in rule.get("ports", [])}


class Meaning(unittest.TestCase):
    @every_set
    def test_selectors_find_the_pods_they_mean_and_no_others(self, _, manifests):
        for deployment in of_kind(manifests, "Deployment"):
            name = deployment["metadata"]["name"]
            self.assertEqual(selected(manifests, deployment["spec"]["selector"]["matchLabels"]), [name])
        own = server(manifests)["metadata"]["name"]
        for service in of_kind(manifests, "Service"):
            labels = service["metadata"]["labels"]
            component = labels["app.kubernetes.io/component"]
            expected = own if component in ("server", "admin") else service["metadata"]["name"]
            self.assertEqual(selected(manifests, service["spec"]["selector"]), [expected])
        for kind, place in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
            for manifest in of_kind(manifests, kind):
                found = selected(manifests, manifest["spec"][place]["matchLabels"])
                self.assertEqual(found, [manifest["metadata"]["name"]])
        for constraint in server(manifests)["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            self.assertEqual(selected(manifests, constraint["labelSelector"]["matchLabels"]), [own])

    @every_set
    def test_ports_are_those_that_the_server_listens_on(self, name, manifests):
        config = merged({"server": {"port": 6001}, "admin": {"port": 9601}}, values_of(name).get("config", {}))
        public, admin = config["server"]["port"], config["admin"]["port"]
        pod = server(manifests)["spec"]["template"]
        known = ports(pod)
        self.assertIn(public, known.values())
        self.assertEqual(known["admin"], admin)
        for service in of_kind(manifests, "Service"):
            [found] = selected(manifests, service["spec"]["selector"])
            for port in service["spec"]["ports"]:
                self.assertIn(port["targetPort"], ports(pods(manifests)[found]))
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            self.assertEqual(own_container(pod["spec"])[probe]["httpGet"]["port"], "admin")

    @every_set
    def test_routes_lead_to_ports_of_services(self, name, manifests):
        services = {service["metadata"]["name"]: service["spec"]["ports"] for service in of_kind(manifests, "Service")}
        for ingress in of_kind(manifests, "Ingress"):
            for rule in ingress["spec"]["rules"]:
                for path in rule["http"]["paths"]:
                    backend = path["backend"]["service"]
                    self.assertIn(backend["port"]["name"], [port["name"] for port in services[backend["name"]]])
        for route in of_kind(manifests, "HTTPRoute"):
            for backend in chain(*(rule["backendRefs"] for rule in route["spec"]["rules"])):
                self.assertIn(backend["port"], [port["port"] for port in services[backend["name"]]])
        for monitor in of_kind(manifests, "ServiceMonitor"):
            labels = monitor["spec"]["selector"]["matchLabels"]
            found = [one for one in of_kind(manifests, "Service") if labels.items() <= one["metadata"]["labels"].items()]
            self.assertEqual(len(found), 1)
            # As the rules of deploy/prometheus/alerts.yml have it, where nobody gives the chart another name.
            self.assertEqual(found[0]["metadata"]["labels"][monitor["spec"]["jobLabel"]], "gateway" if "everything" in name else "fanwire")
            self.assertIn(monitor["spec"]["endpoints"][0]["port"], [port["name"] for port in found[0]["spec"]["ports"]])

    @every_set
    def test_what_a_pod_refers_to_is_there_when_it_starts(self, name, manifests):
        outside = [(manifest["kind"], manifest["metadata"]["name"], held(manifest)) for manifest in fixtures(name)]
        hooks = [one for one in manifests if "helm.sh/hook" in one["metadata"].get("annotations", {})]
        for workload in workloads(manifests):
            # A hook runs before all else of the release.
            around = hooks if workload in hooks else [one for one in manifests if one not in hooks]
            known = {("Secret", one["metadata"]["name"]): held(one) for one in of_kind(around, "Secret")}
            known |= {(kind, called): keys for kind, called, keys in outside}
            accounts = {one["metadata"]["name"] for one in of_kind(around, "ServiceAccount")}
            spec = workload["spec"]["template"]["spec"]
            self.assertIn(spec.get("serviceAccountName", "default"), accounts | {"default"})
            for secret in spec.get("imagePullSecrets", []):
                self.assertIn(("Secret", secret["name"]), known)
            volumes = {volume["name"]: volume for volume in spec["volumes"]}
            for volume in volumes.values():
                if "secret" in volume:
                    self.assertIn(("Secret", volume["secret"]["secretName"]), known)
            container = own_container(spec)
            for mount in container["volumeMounts"]:
                self.assertIn(mount["name"], volumes)
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    reference = variable["valueFrom"]["secretKeyRef"]
                    self.assertIn(reference["key"], known["Secret", reference["name"]])
            for source in container.get("envFrom", []):
                kind, reference = ("Secret", source["secretRef"]) if "secretRef" in source else ("ConfigMap", source["configMapRef"])
                self.assertIn((kind, reference["name"]), known)
        for ingress in of_kind(manifests, "Ingress"):
            for tls in ingress["spec"].get("tls", []):
                self.assertIn(("Secret", tls["secretName"]), {(kind, called) for kind, called, _ in outside})

    @every_set
    def test_pods_keep_to_the_restricted_profile(self, _, manifests):
        for name, pod in pods(manifests).items():
            spec = pod["spec"]
            self.assertFalse(spec["automountServiceAccountToken"], name)
            self.assertFalse(spec["enableServiceLinks"], name)
            self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            for word in ("hostNetwork", "hostPID", "hostIPC"):
                self.assertNotIn(word, spec)
            for volume in spec["volumes"]:
                self.assertTrue({"secret", "emptyDir", "configMap", "projected"} & volume.keys(), volume)
            for container in spec["containers"] + spec.get("initContainers", []):
                context = container["securityContext"]
                self.assertFalse(context["allowPrivilegeEscalation"])
                self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                self.assertTrue(spec["securityContext"]["runAsNonRoot"] or context.get("runAsNonRoot"))
                self.assertNotEqual(spec["securityContext"]["runAsUser"], 0)
            self.assertTrue(own_container(spec)["securityContext"]["readOnlyRootFilesystem"], name)
            self.assertIn("requests", own_container(spec)["resources"])

    @every_set
    def test_labels_and_annotations_of_all_are_on_everything(self, name, manifests):
        values = values_of(name)
        for manifest in manifests:
            metadata = manifest["metadata"]
            self.assertLessEqual(values.get("commonLabels", {}).items(), metadata["labels"].items())
            self.assertLessEqual(values.get("commonAnnotations", {}).items(), metadata.get("annotations", {}).items())

    @every_set
    def test_pods_have_the_time_to_leave(self, name, manifests):
        drain = merged({"delay_s": 5, "drain_s": 30}, values_of(name).get("config", {}).get("drain", {}))
        spec = server(manifests)["spec"]
        draining = drain["delay_s"] + drain["drain_s"]
        grace = spec["template"]["spec"]["terminationGracePeriodSeconds"]
        given = values_of(name).get("terminationGracePeriodSeconds", draining + LEAVING_S + SPARE_S)
        self.assertEqual(grace, given)
        self.assertGreaterEqual(grace, draining + LEAVING_S)
        self.assertGreater(spec["progressDeadlineSeconds"], spec["minReadySeconds"])
        if "minReadySeconds" not in values_of(name):
            self.assertGreaterEqual(spec["minReadySeconds"], draining, "two pods would drain at a time")
        # Load balancers that ask for themselves have noticed before the first close.
        probe = own_container(spec["template"]["spec"])["readinessProbe"]
        noticed = probe["periodSeconds"] * probe["failureThreshold"]
        self.assertGreaterEqual(drain["delay_s"] + 1, noticed)

    def test_a_pod_that_sleeps_before_it_leaves_has_the_time_for_that_too(self):
        sleeps = merged(MINIMAL, {"lifecycle": {"preStop": {"sleep": {"seconds": 7}}}})
        spec = server(rendered(sleeps))["spec"]["template"]["spec"]
        self.assertEqual(spec["terminationGracePeriodSeconds"], 5 + 30 + 7 + LEAVING_S + SPARE_S)

    @every_set
    def test_a_budget_lets_pods_go(self, _, manifests):
        scaler = of_kind(manifests, "HorizontalPodAutoscaler")
        pods_min = scaler[0]["spec"]["minReplicas"] if scaler else server(manifests)["spec"].get("replicas", 1)
        budget = the(manifests, "PodDisruptionBudget")["spec"]
        if "minAvailable" in budget:
            self.assertLess(budget["minAvailable"], pods_min)
        else:
            self.assertGreaterEqual(budget["maxUnavailable"], 1)

    @every_set
    def test_a_scaler_is_alone_in_saying_how_many_pods_there_are(self, _, manifests):
        for scaler in of_kind(manifests, "HorizontalPodAutoscaler"):
            self.assertEqual(scaler["spec"]["scaleTargetRef"]["name"], server(manifests)["metadata"]["name"])
            self.assertNotIn("replicas", server(manifests)["spec"])

    def test_pods_are_replaced_one_after_the_other_where_they_know_of_each_other(self):
        for values, expected in ((MINIMAL, "Recreate"), (CLUSTER, "RollingUpdate")):
            strategy = server(rendered(values))["spec"]["strategy"]
            self.assertEqual(strategy["type"], expected)
        self.assertEqual(strategy["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})

    def test_pods_are_replaced_for_what_they_cannot_follow_and_for_nothing_else(self):
        def pod(change):
            return server(rendered(merged(CLUSTER, change)))["spec"]["template"]

        before = pod({})
        app = {"id": "2", "key": "other", "secret": "another long random text"}
        self.assertEqual(pod({"config": {"apps": CLUSTER["config"]["apps"] + [app]}}), before)
        for change in (
            {"config": {"redis": {"url": "redis://other"}}},
            {"config": {"server": {"sockets_max": 10_000}}},
            {"config": {"server": {"watch_config": False}}},
        ):
            self.assertNotEqual(pod(change), before)
        alone = {"config": {"server": {"watch_config": False}}}
        self.assertNotEqual(pod(alone), pod(merged(alone, {"config": {"apps": [app]}})))

    def test_the_network_policy_lets_through_what_there_is(self):
        expected = {
            "minimal": None,
            "production": {53, 6380, 8080},
            "nats": {53, 4222},
            "gateway": {53, 26379, 6379},
            "store": {53, 6379, 5432},
            "everything": {53, 6379, 3306, 8080},
        }
        for name, out in expected.items():
            with self.subTest(name):
                manifests = rendered_set(name)
                own = server(manifests)
                policy = the(manifests, "NetworkPolicy", own["metadata"]["name"])["spec"]
                known = ports(own["spec"]["template"])
                public, admin = policy["ingress"][:2]
                self.assertEqual(policy_ports([public]), {known["http"]})
                self.assertEqual(policy_ports([admin]), {known["admin"]})
                self.assertTrue(admin["from"], "the admin port is not for everybody")
                self.assertEqual("Egress" in policy["policyTypes"], out is not None)
                if out:
                    self.assertEqual(policy_ports(policy["egress"]), out)

    def test_a_broker_of_the_chart_is_open_to_the_servers_only(self):
        for broker in ("redis", "nats"):
            manifests = rendered_set(f"trial-{broker}")
            own, beside = server(manifests), f"fanwire-{broker}"
            [rule] = the(manifests, "NetworkPolicy", beside)["spec"]["ingress"]
            [peer] = rule["from"]
            self.assertEqual(selected(manifests, peer["podSelector"]["matchLabels"]), [own["metadata"]["name"]])
            self.assertEqual(policy_ports([rule]), set(ports(pods(manifests)[beside]).values()))
            self.assertNotIn("a password", json.dumps(manifests), "it stands in a Secret only")

    def test_an_ingress_keeps_silent_tunnels(self):
        ingress = the(rendered_set("production"), "Ingress")
        self.assertEqual(ingress["spec"]["ingressClassName"], "nginx")
        of_nginx = {
            name.removeprefix("nginx.ingress.kubernetes.io/"): value
            for name, value in ingress["metadata"]["annotations"].items()
            if name.startswith("nginx.")
        }
        # A silent client is asked after 120 seconds; nginx by itself would cut it after 60. A body may have 2 MiB.
        expected = {"proxy-read-timeout": "3600", "proxy-send-timeout": "3600", "proxy-body-size": "2097152"}
        self.assertEqual(of_nginx, expected)
        paths = [path["path"] for path in ingress["spec"]["rules"][0]["http"]["paths"]]
        self.assertEqual(paths, ["/app", "/apps"])

    def test_pods_with_a_certificate_are_spoken_to_by_tls_wherever_it_is(self):
        files = {"tls": {"cert_file": "/certificate", "key_file": "/key"}}
        elsewhere = values_of("existing-secret")
        for base, change, scheme in (
            (CLUSTER, {}, "http"),
            (CLUSTER, {"config": {"tls": {"min_version": "1.3"}}}, "http"),
            (CLUSTER, {"config": files}, "https"),
            (CLUSTER, {"tls": {"existingSecret": "mine"}}, "https"),
            (elsewhere, {"config": files}, "https"),
            (elsewhere, {"tls": {"existingSecret": "mine"}}, "https"),
        ):
            with self.subTest(json.dumps(change), beside="existingSecret" in base):
                values = merged(base, change)
                manifests = rendered(merged(values, {"ingress": {"enabled": True, "hosts": ["ws.example.com"]}}))
                container = own_container(server(manifests)["spec"]["template"]["spec"])
                self.assertEqual([port["name"] for port in container["ports"]], [scheme, "admin"])
                [port] = the(manifests, "Service", "fanwire")["spec"]["ports"]
                self.assertEqual((port["name"], port["targetPort"]), (scheme, scheme))
                ingress = the(manifests, "Ingress")
                spoken = ingress["metadata"]["annotations"].get("nginx.ingress.kubernetes.io/backend-protocol", "HTTP")
                self.assertEqual(spoken, scheme.upper())
                backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
                self.assertEqual(backend["port"], {"name": scheme})
                told = notes(values)
                self.assertIn(f"PUSHER_SCHEME={scheme}\n", told)
                # By a name that the certificate may not have.
                self.assertEqual("The certificate of the pods has to be for this PUSHER_HOST" in told, scheme == "https")
                self.assertIn(f"forceTLS: {json.dumps(scheme == 'https')},", told)
                named = [variable["name"] for variable in container["env"]]
                self.assertEqual(len(named), len(set(named)), "a variable stands there twice")

    def test_a_route_keeps_them_too_behind_a_prefix(self):
        sockets, api = the(rendered_set("gateway"), "HTTPRoute")["spec"]["rules"]
        self.assertEqual(sockets["matches"][0]["path"], {"type": "PathPrefix", "value": "/ws/app"})
        self.assertEqual(sockets["timeouts"], {"request": "0s", "backendRequest": "0s"})
        self.assertEqual(api["matches"][0]["path"], {"type": "PathPrefix", "value": "/ws/apps"})

    def test_a_route_may_leave_the_api_to_who_is_in_the_cluster(self):
        inside = merged(values_of("gateway"), {"httpRoute": {"apiPaths": None}})
        [sockets] = the(rendered(inside), "HTTPRoute")["spec"]["rules"]
        self.assertEqual(len(sockets["matches"]), 1)

    def test_a_scaler_goes_by_sockets(self):
        sockets, cpu = the(rendered_set("production"), "HorizontalPodAutoscaler")["spec"]["metrics"]
        self.assertEqual(sockets["pods"]["metric"]["name"], "fanwire_connected")
        self.assertEqual(sockets["pods"]["target"], {"type": "AverageValue", "averageValue": "20000"})
        self.assertEqual(cpu["resource"]["target"]["averageUtilization"], 70)
        # By the name that metrics have.
        sockets = the(rendered_set("everything"), "HorizontalPodAutoscaler")["spec"]["metrics"][0]
        self.assertEqual(sockets["pods"]["metric"]["name"], "soketi_connected")
        self.assertEqual(sockets["pods"]["target"]["averageValue"], "1000000")

    def test_tables_are_brought_up_to_date_where_there_are_some(self):
        def has_job(values):
            return bool(of_kind(rendered(values), "Job"))

        store = values_of("store")
        self.assertTrue(has_job(store))
        self.assertFalse(has_job(merged(store, {"config": {"store": {"migrate_on_start": True}}})))
        self.assertFalse(has_job(merged(store, {"migrate": {"enabled": False}})))
        self.assertFalse(has_job(MINIMAL))
        self.assertFalse(has_job(merged(MINIMAL, {"config": {"store": {"url": "sqlite:///apps.db"}}})))
        self.assertFalse(has_job(values_of("existing-secret")))
        self.assertTrue(has_job(merged(values_of("existing-secret"), {"migrate": {"enabled": True}})))

    def test_secrets_stand_in_secrets_only(self):
        for name in ("minimal", "trial-redis", "production"):
            self.assertNotIn("a long random text", template(values_of(name)))


class Notes(unittest.TestCase):
    def test_they_show_how_to_connect(self):
        of_a_host = ["wsHost: 'ws.example.com'", "wssPort: 443", "forceTLS: true", "PUSHER_HOST=ws.example.com", "PUSHER_SCHEME=https"]
        table = {
            "minimal": ["port-forward service/fanwire 6001:6001", "wsHost: '127.0.0.1'", "wsPort: 6001", "forceTLS: false", "no broker"],
            "trial-redis": ["for trials"],
            "production": [*of_a_host, "new Pusher('shop'", "broadcaster: 'reverb'", "PUSHER_APP_ID=1"],
            "gateway": [*of_a_host, "wsPath: '/ws'", "new Pusher('my-key'"],
            "nats": ["wsHost: 'HOST'", "wsPort: 443"],
            "existing-secret": ["new Pusher('APP_KEY'"],
        }
        for name, parts in table.items():
            told = notes(values_of(name))
            for part in parts:
                with self.subTest(name, part=part):
                    self.assertIn(part, told)
            self.assertNotIn("a long random text", told, "a secret does not belong into a terminal")
