// Nodes that leave while others stay, seen by pusher-js: two nodes joined by Redis, behind a load balancer that obeys
// `/ready`. Whoever is closed is back at once and has missed nothing that a cache channel keeps; presence tells of each
// member what is true; and a rolling update costs each client its reconnects, and nothing else.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { connect } from "node:net";
import { Balancer } from "./balancer.mjs";
import { api, connected, subscribed } from "./clients.mjs";
import { fresh, run, test, until } from "./harness.mjs";
import { freePort, Server } from "./server.mjs";

const CLIENTS = 60;
/** Between two events on the cache channel: longer than anybody is away, who is not held up. */
const PAUSE_MS = 500;
/** The balancer asks once a second, so it has turned to the others when the first socket is closed. */
const DRAIN = { delay_s: 2, drain_s: 3 };
/** What an orchestrator waits before it tells a node to leave, and how long it waits for the node to do so. */
const PRE_STOP_MS = 1000;
const GRACE_MS = PRE_STOP_MS + 1000 * (DRAIN.delay_s + DRAIN.drain_s + 20);

const redis = await startRedis();
let nodes = 0;

async function startRedis() {
  const port = await freePort();
  const args = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(String);
  // The kernel ends it if this process dies without doing so.
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "--", "redis-server", ...args], { stdio: "ignore" });
  const listens = () =>
    new Promise((resolve) => {
      const socket = connect({ port, host: "127.0.0.1" });
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });
  await until("redis-server listens", listens, 15_000);
  return { url: `redis://127.0.0.1:${port}`, stop: () => child.kill("SIGKILL") };
}

/** One more node, which the balancer does not know yet. */
async function startNode(t) {
  const sections = { drain: DRAIN, adapter: { driver: "redis" }, redis: { url: redis.url } };
  const node = await Server.start({ name: `rollout-${++nodes}`, sections });
  t.after(() => node.kill());
  return node;
}

async function behind(t, ...nodes) {
  const balancer = await Balancer.start();
  t.after(() => balancer.stop());
  for (const node of nodes) await balancer.add(node);
  return balancer;
}

/** A client that writes down what it goes through. */
class Witness {
  static async come(t, balancer, user, channels) {
    const witness = new Witness();
    witness.user = user;
    /** `{from, to}` of each time without a connection. */
    witness.away = [];
    witness.states = [];
    witness.errors = [];
    witness.numbers = [];
    const pusher = await connected(t, { user, port: balancer.port });
    witness.pusher = pusher;
    pusher.connection.bind("state_change", ({ previous, current }) => {
      witness.states.push(current);
      if (previous === "connected") witness.away.push({ from: Date.now() });
      if (current === "connected") witness.away.at(-1).to = Date.now();
    });
    pusher.connection.bind("error", (error) => witness.errors.push(error.data?.code ?? error.error?.data?.code));
    const prices = await subscribed(pusher, channels.cache);
    prices.bind("price", ({ number }) => witness.numbers.push({ number, at: Date.now() }));
    witness.room = await subscribed(pusher, channels.presence);
    return witness;
  }

  /** All it missed was replaced by something newer before it was back, and that took longer than it takes an event. */
  assertMissedNothing(published) {
    const seen = new Set(this.numbers.map(({ number }) => number));
    const first = this.numbers[0].number;
    for (const { number, at } of published.filter(({ number }) => number > first && !seen.has(number))) {
      const gap = this.away.find(({ from, to }) => from <= at + PAUSE_MS && at <= to);
      const isSeen = `${this.user} missed ${number}, and was away ${JSON.stringify(this.away)}`;
      assert.ok(gap && gap.to - gap.from >= PAUSE_MS, isSeen);
    }
    assert.ok(seen.has(published.at(-1).number), `${this.user} has the last event`);
    const order = this.numbers.map(({ number }) => number);
    // The cached event may be heard again after a reconnect; older ones never are.
    assert.deepEqual(order, order.toSorted((a, b) => a - b), `${this.user} heard all in order`);
  }

  /** Each time it was closed to come back, it did, at its first attempt. */
  assertOnlyReconnected(timesMax) {
    const expected = this.away.flatMap(() => ["connecting", "connected"]);
    assert.deepEqual(this.states, expected, `${this.user} went through`);
    assert.ok(this.away.length <= timesMax, `${this.user} was closed ${this.away.length} times`);
    assert.ok(this.errors.every((code) => code === 4200), `${this.user} met ${this.errors}`);
  }
}

/** What somebody who is never closed is told of the members: who leaves was there, who comes was not. */
class Observer {
  static async come(t, node, name) {
    const observer = new Observer();
    observer.pusher = await connected(t, { user: "observer", port: node.port });
    observer.news = [];
    const room = await subscribed(observer.pusher, name);
    observer.room = room;
    room.bind("pusher:member_added", ({ id }) => observer.news.push(`+${id}`));
    room.bind("pusher:member_removed", ({ id }) => observer.news.push(`-${id}`));
    return observer;
  }

  /** Of each member nothing (it was back before its leave was told), or that it left and came, at most so often. */
  assertNoFlicker(users, timesMax) {
    for (const user of users) {
      const news = this.news.filter((one) => one.slice(1) === user).map((one) => one[0]).join("");
      assert.match(news, new RegExp(`^(-\\+){0,${timesMax}}$`), `what was told of ${user}`);
    }
  }
}

/** Publishes numbers until it is stopped, each call through the balancer, and none may fail. */
function publish(balancer, channel) {
  const published = [];
  let stops = false;
  const done = (async () => {
    for (let number = 0; !stops; number += 1) {
      const at = Date.now();
      await api(undefined, balancer).trigger(channel, "price", { number });
      published.push({ number, at });
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    return published;
  })();
  // Told to who waits for it; not to nobody, meanwhile.
  done.catch(() => {});
  return { stop: () => ((stops = true), done), count: () => published.length };
}

async function gather(t, balancer, channels) {
  const coming = Array.from({ length: CLIENTS }, (_, number) => Witness.come(t, balancer, `user${number}`, channels));
  return Promise.all(coming);
}

async function everybodyKnows(witnesses, count) {
  await until(`${count} members everywhere`, () => witnesses.every(({ room }) => room.members.count === count), 10_000);
}

function tell(what, witnesses) {
  const times = witnesses.flatMap(({ away }) => away.map(({ from, to }) => to - from)).sort((a, b) => a - b);
  const at = (share) => times[Math.floor((times.length - 1) * share)];
  console.log(`   ${what}: ${times.length} reconnects, without a connection p50 ${at(0.5)} ms, longest ${at(1)} ms`);
}

/** What an orchestrator does to a node that is to go. */
async function terminate(node) {
  const begun = Date.now();
  await new Promise((resolve) => setTimeout(resolve, PRE_STOP_MS));
  node.child.kill("SIGTERM");
  const killed = setTimeout(() => node.child.kill("SIGKILL"), GRACE_MS - (Date.now() - begun));
  const how = await node.exited;
  clearTimeout(killed);
  assert.equal(how, 0, "it leaves by itself, in good order, within its grace period");
}

test("a node that leaves: all clients come back on the other one", async (t) => {
  const [a, b] = [await startNode(t), await startNode(t)];
  const balancer = await behind(t, a);
  const channels = { cache: fresh("cache-prices"), presence: fresh("presence-room") };
  const observer = await Observer.come(t, b, channels.presence);
  const witnesses = await gather(t, balancer, channels);
  await everybodyKnows([...witnesses, observer], CLIENTS + 1);
  await balancer.add(b);
  observer.news = [];
  const publisher = publish(balancer, channels.cache);
  await until("the first events", () => publisher.count() >= 2);

  const begun = Date.now();
  a.child.kill("SIGTERM");
  assert.equal(await a.exited, 0);
  console.log(`   the node has left after ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  await everybodyKnows([...witnesses, observer], CLIENTS + 1);
  const published = await publisher.stop();
  await until("the last event", () => witnesses.every(({ numbers }) => numbers.at(-1).number === published.length - 1));

  for (const witness of witnesses) {
    assert.equal(witness.away.length, 1, `${witness.user} was closed once`);
    witness.assertOnlyReconnected(1);
    witness.assertMissedNothing(published);
  }
  observer.assertNoFlicker(witnesses.map(({ user }) => user), 1);
  assert.equal(balancer.turnedAway, 0);
  const metrics = await (await fetch(`${b.adminUrl}/metrics`)).text();
  assert.match(metrics, new RegExp(`^fanwire_connected\\{app_id="100",[^}]*\\} ${CLIENTS + 1}$`, "m"));
  tell("drain", witnesses);
}, { ms: 90_000 });

test("a rolling update: two replicas are replaced one by one under load", async (t) => {
  let replicas = [await startNode(t), await startNode(t)];
  const balancer = await behind(t, ...replicas);
  const channels = { cache: fresh("cache-prices"), presence: fresh("presence-room") };
  const witnesses = await gather(t, balancer, channels);
  await everybodyKnows(witnesses, CLIENTS);
  const publisher = publish(balancer, channels.cache);
  await until("the first events", () => publisher.count() >= 2);
  const [upgrades, begun] = [balancer.upgrades, Date.now()];

  for (const old of replicas) {
    // One more than there should be first, and the old one only when the new one is ready.
    const young = await startNode(t);
    await balancer.add(young);
    await until("the new node is ready", () => balancer.isReady(young), 20_000);
    await terminate(old);
    balancer.remove(old);
    replicas = [...replicas.filter((one) => one !== old), young];
  }
  console.log(`   two replicas replaced in ${((Date.now() - begun) / 1000).toFixed(1)} s`);

  await everybodyKnows(witnesses, CLIENTS);
  const published = await publisher.stop();
  await until("the last event", () => witnesses.every(({ numbers }) => numbers.at(-1).number === published.length - 1));
  for (const witness of witnesses) {
    witness.assertOnlyReconnected(2);
    witness.assertMissedNothing(published);
  }
  // Each reconnect took one connection: nobody was refused, or sent to a node that had gone.
  const reconnects = witnesses.reduce((sum, { away }) => sum + away.length, 0);
  assert.ok(reconnects >= CLIENTS, `${reconnects} reconnects of ${CLIENTS} clients`);
  assert.equal(balancer.turnedAway, 0);
  assert.equal(balancer.upgrades - upgrades, reconnects);
  tell("rolling update", witnesses);
}, { ms: 120_000 });

await run(async () => redis.stop());
