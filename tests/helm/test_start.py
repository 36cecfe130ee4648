"""What the chart renders, given to the real server: it finds its configuration right, serves from it, follows it, and
leaves in time. The same for the brokers that the chart runs beside it."""

import json
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
from contextlib import ExitStack

from support import (
    MINIMAL,
    Pod,
    SETS,
    certificate,
    eventually,
    fixtures,
    free_port,
    get,
    held,
    merged,
    new_certificate,
    of_kind,
    own_container,
    rendered,
    rendered_set,
    server,
    the,
    values_of,
    workloads,
)


class Running:
    """A process that is ended when it is no longer needed."""

    def __init__(self, process):
        self.process = process

    def __enter__(self):
        return self.process

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def connected(address):
    """A socket of the app of the set `minimal`, to be closed."""
    host, port = address.removeprefix("http://").split(":")
    stream = socket.create_connection((host, int(port)), timeout=5)
    head = ["GET /app/my-key?protocol=7 HTTP/1.1", f"Host: {host}", "Connection: Upgrade", "Upgrade: websocket"]
    head += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
    stream.sendall("\r\n".join(head).encode())
    assert b" 101 " in stream.recv(4096)
    return stream


class Start(unittest.TestCase):
    def setUp(self):
        self.kept = ExitStack()
        self.addCleanup(self.kept.close)

    def pod(self, workload, around):
        return Pod(workload, around, self.kept.enter_context(tempfile.TemporaryDirectory()))

    def run_pod(self, pod, **changed):
        """Starts a pod's server on ports of its own; where its two ports are."""
        port, admin = free_port(), free_port()
        here = {"FANWIRE_SERVER__HOST": "127.0.0.1", "FANWIRE_ADMIN__HOST": "127.0.0.1"}
        here |= {"FANWIRE_SERVER__PORT": str(port), "FANWIRE_ADMIN__PORT": str(admin)}
        process = self.kept.enter_context(Running(pod.run(*pod.container["args"], **here, **changed)))
        probe = pod.container["readinessProbe"]["httpGet"]
        address = f"http://127.0.0.1:{admin}{probe['path']}"
        has_ended = lambda: self.assertIsNone(process.poll(), process.poll() is not None and process.stderr.read())
        eventually("ready", lambda: get(address)[0] == 200 or has_ended())
        return process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"

    def test_the_server_finds_every_rendered_configuration_right(self):
        for name in SETS:
            manifests = rendered_set(name)
            for workload in workloads(manifests):
                if own_container(workload["spec"]["template"]["spec"])["name"] not in ("fanwire", "migrate"):
                    continue
                with self.subTest(name, kind=workload["kind"]):
                    around = manifests + fixtures(name)
                    pod = self.pod(workload, around)
                    process = pod.run("check-config")
                    out, complained = process.communicate()
                    self.assertEqual(process.returncode, 0, complained)
                    self.means(name, workload, json.loads(out))

    def means(self, name, workload, config):
        """Whether the resolved configuration is what the values say."""
        asked = merged({"server": {"host": "0.0.0.0", "port": 6001}}, values_of(name).get("config", {}))
        for section in ("server", "drain", "adapter", "metrics"):
            for key, value in asked.get(section, {}).items():
                if section != "adapter" or workload["kind"] == "Deployment":
                    self.assertEqual(config[section][key], value, f"{section}.{key}")
        if workload["kind"] == "Deployment":
            broker = next((kind for kind in ("redis", "nats") if values_of(name).get(kind, {}).get("enabled")), None)
            self.assertEqual(config["adapter"]["driver"], broker or asked.get("adapter", {}).get("driver", "none"))

    def test_it_serves_follows_its_apps_and_leaves_in_time(self):
        values = merged(MINIMAL, {"config": {"drain": {"delay_s": 1, "drain_s": 1}}})
        manifests = rendered(values)
        pod = self.pod(server(manifests), manifests)
        process, public, admin = self.run_pod(pod)
        for kind in ("liveness", "readiness", "startup"):
            self.assertEqual(get(admin + pod.container[f"{kind}Probe"]["httpGet"]["path"])[0], 200)
        with connected(public):
            # By which the pods are scaled.
            eventually("it is counted", lambda: re.search(r"^fanwire_connected\{.*\} 1$", get(f"{admin}/metrics")[1], re.MULTILINE))
        self.assertEqual([get(f"{public}/up/{app}")[0] for app in "12"], [200, 404])

        # An app is added: the Secret changes, and with it the link that the kubelet puts in its place.
        more = merged(values, {"config": {"apps": MINIMAL["config"]["apps"] + [{"id": "2", "key": "k", "secret": "s"}]}})
        self.assertEqual(server(rendered(more)), server(manifests), "no pod is replaced for that")
        pod.replace(the(rendered(more), "Secret"))
        eventually("the new app is served", lambda: get(f"{public}/up/2")[0] == 200)

        begun = time.monotonic()
        process.terminate()
        eventually("not ready while it drains", lambda: get(f"{admin}/ready")[0] in (503, None))
        process.wait(pod.spec["terminationGracePeriodSeconds"])
        self.assertEqual(process.returncode, 0)
        self.assertGreaterEqual(time.monotonic() - begun, 1, "the delay")

    def test_apps_that_only_the_server_knows_to_be_wrong_are_refused_and_shown_where_the_docs_say(self):
        manifests = rendered(MINIMAL)
        pod = self.pod(server(manifests), manifests)
        _, public, admin = self.run_pod(pod)
        refusals = r"^fanwire_config_refused_total\b.* 1$"
        self.assertIsNone(re.search(refusals, get(f"{admin}/metrics")[1], re.MULTILINE))

        wrong = merged(MINIMAL, {"config": {"apps": [MINIMAL["config"]["apps"][0] | {"allowed_origins": ["http//example.com"]}]}})
        pod.replace(the(rendered(wrong), "Secret"))
        eventually("it is counted", lambda: re.search(refusals, get(f"{admin}/metrics")[1], re.MULTILINE))
        self.assertEqual(get(f"{public}/up/1")[0], 200, "it goes on with what it had")
        asked = pod.run("check-config")
        _, complained = asked.communicate()
        self.assertNotEqual(asked.returncode, 0)
        self.assertIn("apps[0].allowed_origins[0]: ", complained)

    def test_the_doctor_works_beside_the_server(self):
        manifests = rendered(MINIMAL)
        pod = self.pod(server(manifests), manifests)
        _, *addresses = self.run_pod(pod)
        port, admin = (address.rsplit(":", 1)[1] for address in addresses)
        doctor = pod.run("doctor", FANWIRE_SERVER__PORT=port, FANWIRE_ADMIN__PORT=admin)
        told, complained = doctor.communicate()
        self.assertEqual(complained, "")
        self.assertEqual(told.count("is served by a Fanwire already"), 2, told)

    def test_tls_ends_in_the_pod_by_a_certificate_that_is_followed(self):
        alone = {"replicaCount": 1, "config": {"adapter": {"driver": "none"}, "drain": {"delay_s": 0, "drain_s": 0}}}
        # A broker that nothing uses is refused.
        alone["config"]["redis"] = {"url": "redis://127.0.0.1:6379"}
        manifests = rendered(merged(values_of("tls"), alone))
        pod = self.pod(server(manifests), manifests + fixtures("tls"))
        _, public, _ = self.run_pod(pod)
        address = ("127.0.0.1", int(public.rsplit(":", 1)[1]))
        shown = ssl.get_server_certificate(address)
        self.assertEqual(shown.strip(), certificate()[0].strip())

        # cert-manager renews it.
        renewed, key = new_certificate()
        secret = {**fixtures("tls")[0], "stringData": {"tls.crt": renewed, "tls.key": key}}
        pod.replace(secret)
        eventually("the new one is shown", lambda: ssl.get_server_certificate(address).strip() == renewed.strip())

    def test_pods_find_each_other_over_the_broker_of_the_chart(self):
        for broker, program in (("redis", "redis-server"), ("nats", "nats-server")):
            with self.subTest(broker):
                manifests = rendered_set(f"trial-{broker}")
                beside = own_container(the(manifests, "Deployment", f"fanwire-{broker}")["spec"]["template"]["spec"])
                port, monitor = free_port(), free_port()
                password = held(the(manifests, "Secret", f"fanwire-{broker}"))["password"]
                data = self.kept.enter_context(tempfile.TemporaryDirectory())
                # As the image's entry point and Kubernetes would read the arguments, on a port of its own.
                arguments = [argument.replace("$(PASSWORD)", password) for argument in beside["args"]]
                arguments = [program, *(argument for argument in arguments if argument != program)]
                here = {"4222": str(port), "8222": str(monitor), "/data": data}
                arguments = [here.get(argument, argument) for argument in arguments]
                if broker == "redis":
                    arguments += ["--port", str(port), "--dir", data]
                found = shutil.which(program) or f"/usr/sbin/{program}"
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
                self.kept.enter_context(Running(subprocess.Popen([found, *arguments[1:]], **quiet)))

                pods = [self.pod(server(manifests), manifests) for _ in range(2)]
                name, default = {"redis": ("FANWIRE_REDIS__URL", 6379), "nats": ("FANWIRE_NATS__URLS", 4222)}[broker]
                address = re.sub(rf"fanwire-{broker}:{default}", f"127.0.0.1:{port}", pods[0].variables()[name])
                admins = [self.run_pod(pod, **{name: address})[2] for pod in pods]
                for admin in admins:
                    eventually("both nodes know of each other", lambda: json.loads(get(f"{admin}/ready")[1])["cluster"]["nodes"] == 2)

    def test_a_broker_of_the_chart_asks_for_its_password(self):
        manifests = rendered(merged(values_of("trial-redis"), {"redis": {"password": ""}}))
        self.assertEqual([one["metadata"]["name"] for one in of_kind(manifests, "Secret")], ["fanwire"])
        beside = own_container(the(manifests, "Deployment", "fanwire-redis")["spec"]["template"]["spec"])
        self.assertNotIn("--requirepass", beside["args"])
