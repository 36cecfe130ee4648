// Webhooks, judged by the validator of an official SDK: `node webhooks.mjs SDK RECEIVER…`, where the receiver is a program
// as `backend.mjs` describes it. Clients do what makes the server send each kind of event, alone and in batches; the
// receiver's SDK has to accept every body.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { HOOKED, PATIENT, withKey } from "./apps.mjs";
import { Backend, checkRequest } from "./backend.mjs";
import { api, connected, subscribed } from "./clients.mjs";
import { fresh, next, run, test, until } from "./harness.mjs";
import { Server } from "./server.mjs";

const [SDK, ...RECEIVER] = process.argv.slice(2);
const KINDS = [
  "channel_occupied",
  "channel_vacated",
  "member_added",
  "member_removed",
  "client_event",
  "cache_miss",
  "subscription_count",
];
/** The events of a batch, at most. */
const BATCH_MAX = 20;

// What signs the webhooks, and what everybody else uses already.
const OLD = withKey(HOOKED, "hooked-old");
const NEW = withKey(HOOKED, "hooked-new");

/**
 * pusher-http-go deciphers whatever comes of an encrypted channel, also where there is nothing to decipher, and then
 * refuses the whole body. So an app with such a back end has it told of the sealed client events of these channels only.
 */
const OPENS_SEALED = SDK === "go";

const backend = await Backend.start(RECEIVER, OLD, check);
const server = await Server.start({ name: `webhooks-${SDK}`, apps: [hooked()] });

function hooked() {
  const endpoint = (name, settings) => ({ name, url: backend.url(name), ...settings });
  const batch = { max_events: BATCH_MAX, max_delay_ms: 150 };
  const webhooks = [
    endpoint("single", { headers: { Authorization: "Bearer of nothing" } }),
    endpoint("batched", { batch, event_types: KINDS }),
  ];
  if (!OPENS_SEALED) return { ...HOOKED, webhooks };
  webhooks.push(endpoint("sealed", { batch, event_types: ["client_event"] }));
  webhooks.push(endpoint("refused", { event_types: ["channel_occupied"] }));
  const channels = [{ pattern: "private-encrypted-*", webhooks: ["sealed", "refused"] }];
  return { ...HOOKED, webhooks, channels };
}

function check(request, { requests }) {
  if (["/forged", "/refused"].includes(request.path)) return;
  checkRequest(request, OLD.key);
  const [id] = request.header("x-fanwire-webhook-id");
  const same = requests.filter((other) => other.header("x-fanwire-webhook-id")[0] === id);
  assert.equal(same.length, 1, "what was answered 200 was sent again");
  const { events, time_ms } = JSON.parse(request.body);
  if (request.path === "/single") {
    assert.equal(events.length, 1);
    assert.deepEqual(request.header("authorization"), ["Bearer of nothing"]);
  }
  assert.ok(events.length <= BATCH_MAX, `${events.length} events`);
  if (request.seen) assert.equal(request.seen.time_ms, time_ms);
}

/** A connected client of the app, and what else `options` of `connected` say. */
function hookedClient(t, options) {
  return connected(t, { app: NEW, port: server.port, ...options });
}

const hookedApi = () => api(NEW, server);

/**
 * Waits until these events of a channel, and no others, have come to the endpoints that are told of it. Those about its
 * subscribers' number are left out unless `counts` are wanted: they are paced.
 */
async function told(channel, expected, { counts = false, at = endpointsOf(channel) } = {}) {
  for (const endpoint of at) {
    const relevant = (events) => events.filter(({ name }) => counts || name !== "subscription_count");
    let latest;
    const all = () => {
      latest = backend.told(endpoint, channel);
      return relevant(latest.sent).length >= expected.length;
    };
    await until(`${expected.length} events at /${endpoint}`, all, 10_000).catch((error) => {
      error.message += `, but ${JSON.stringify(latest.sent)}`;
      throw error;
    });
    const whole = expected.map((event) => ({ ...event, channel }));
    assert.deepEqual(relevant(latest.sent), whole);
    if (SDK !== "java") assert.deepEqual(relevant(latest.seen), whole.map(asSeen));
  }
}

function endpointsOf(channel) {
  return OPENS_SEALED && channel.startsWith("private-encrypted-") ? ["sealed"] : ["single", "batched"];
}

/** What the SDK hands on: the Go SDK has a struct of texts for it, in which there are no counts. */
function asSeen(event) {
  if (SDK !== "go") return event;
  const { subscription_count, ...known } = event;
  return Object.fromEntries(Object.entries(known).filter(([, value]) => value !== ""));
}

const occupied = { name: "channel_occupied" };
const vacated = { name: "channel_vacated" };
const added = (user_id) => ({ name: "member_added", user_id });
const removed = (user_id) => ({ name: "member_removed", user_id });

test(`${SDK}: refuses what is not signed, or changed behind the signature`, async () => {
  const body = JSON.stringify({ time_ms: Date.now(), events: [{ name: "channel_occupied", channel: "my-channel" }] });
  const forge = async (sent, secret = OLD.secret, key = OLD.key) => {
    const signature = createHmac("sha256", secret).update(body).digest("hex");
    const headers = { "Content-Type": "application/json", "X-Pusher-Key": key, "X-Pusher-Signature": signature };
    return (await fetch(backend.url("forged"), { method: "POST", headers, body: sent })).status;
  };
  assert.equal(await forge(body), 200);
  assert.equal(await forge(body.replace("my-", "our")), 401);
  assert.equal(await forge(body, NEW.secret), 401);
  assert.equal(await forge(body, NEW.secret, NEW.key), 401);
});

test(`${SDK}: channel_occupied, channel_vacated and the counts between them`, async (t) => {
  const name = fresh("news");
  const count = (subscription_count) => ({ name: "subscription_count", subscription_count });
  const expected = [occupied, count(1)];
  const [one, two] = [await hookedClient(t), await hookedClient(t)];
  await subscribed(one, name);
  await told(name, expected, { counts: true });
  await subscribed(two, name);
  await told(name, [...expected, count(2)], { counts: true });
  one.unsubscribe(name);
  await told(name, [...expected, count(2), count(1)], { counts: true });
  two.disconnect();
  await told(name, [...expected, count(2), count(1), count(0), vacated], { counts: true });
});

test(`${SDK}: member_added behind channel_occupied, member_removed before channel_vacated`, async (t) => {
  const name = fresh("presence-room");
  const join = async (user) => {
    const pusher = await hookedClient(t, { user: encodeURIComponent(user) });
    await subscribed(pusher, name);
    return pusher;
  };
  const [ada, bob] = ["42", 'böb "the second" <b>&'];
  const first = await join(ada);
  await told(name, [occupied, added(ada)]);
  const tabs = [await join(bob), await join(bob)];
  tabs[0].disconnect();
  tabs[1].unsubscribe(name);
  await told(name, [occupied, added(ada), added(bob), removed(bob)]);
  first.disconnect();
  await told(name, [occupied, added(ada), added(bob), removed(bob), removed(ada), vacated]);
});

test(`${SDK}: client_event on a private channel: data of every kind, always as text`, async (t) => {
  const name = fresh("private-chat");
  const pusher = await hookedClient(t);
  const channel = await subscribed(pusher, name);
  const socket_id = pusher.connection.socket_id;
  const text = 'grüße ✓ 🦀 \u2028 \u0000 \u007f " \\ / \n <b>&\'+';
  const sent = [
    ["plain text", "plain text"],
    ["", ""],
    [text, text],
    [{ a: 1, deep: [true, null, { "ü <b>&": "🦀" }] }, '{"a":1,"deep":[true,null,{"ü <b>&":"🦀"}]}'],
    [{}, "{}"],
    [[1.5, -2e21], "[1.5,-2e+21]"],
    [7, "7"],
    [null, "null"],
    [undefined, "{}"],
  ];
  for (const [data] of sent) channel.trigger("client-ev", data);
  const events = sent.map(([, data]) => ({ name: "client_event", event: "client-ev", data, socket_id }));
  await told(name, [occupied, ...events]);
  pusher.disconnect();
  await told(name, [occupied, ...events, vacated]);
});

test(`${SDK}: client_event on a presence channel has the member's id`, async (t) => {
  const name = fresh("presence-chat");
  const pusher = await hookedClient(t, { user: "42" });
  const channel = await subscribed(pusher, name);
  channel.trigger("client-typing", { on: true });
  const { socket_id } = pusher.connection;
  const typing = { name: "client_event", event: "client-typing", data: '{"on":true}', socket_id, user_id: "42" };
  await told(name, [occupied, added("42"), typing]);
  pusher.disconnect();
  await told(name, [occupied, added("42"), typing, removed("42"), vacated]);
});

test(`${SDK}: client_event on an encrypted channel is handed on as it is`, async (t) => {
  const name = fresh("private-encrypted-vault");
  const pusher = await hookedClient(t);
  await subscribed(pusher, name);
  // What the SDK has sealed goes back as a client event, past pusher-js, which has no client events here.
  const published = next(pusher.connection, "message", { where: ({ event }) => event === "sealed" });
  await hookedApi().trigger(name, "sealed", { code: "0000" });
  const sealed = (await published).data.data;
  const { socket_id } = pusher.connection;
  if (OPENS_SEALED) {
    pusher.send_event("client-sealed", sealed, name);
    const opened = () => backend.told("sealed", name).seen;
    await until("the client event", () => opened().length > 0, 10_000);
    const event = { name: "client_event", channel: name, event: "client-sealed", data: '{"code":"0000"}', socket_id };
    assert.deepEqual(opened(), [event]);
    return;
  }
  const sent = [
    [sealed, JSON.stringify(sealed)],
    [{ a: 1 }, '{"a":1}'],
    ["no JSON", "no JSON"],
  ];
  for (const [data] of sent) pusher.send_event("client-ev", data, name);
  const events = sent.map(([, data]) => ({ name: "client_event", event: "client-ev", data, socket_id }));
  await told(name, [occupied, ...events]);
  pusher.disconnect();
  await told(name, [occupied, ...events, vacated]);
});

if (OPENS_SEALED) {
  test(`${SDK}: the SDK itself refuses what is not sealed of an encrypted channel, each time it is tried`, async (t) => {
    const name = fresh("private-encrypted-refused");
    await subscribed(await hookedClient(t), name);
    const attempts = () => backend.at("refused").filter(({ body }) => JSON.parse(body).events[0].channel === name);
    await until("a second attempt", () => attempts().length > 1, 10_000);
    const [first, second] = attempts();
    assert.equal(first.problem, "Failed to decrypt event, possibly wrong key?");
    assert.deepEqual(JSON.parse(first.body).events, [{ ...occupied, channel: name }]);
    assert.equal(second.body, first.body);
    for (const header of ["content-type", "x-pusher-key", "x-pusher-signature", "x-fanwire-webhook-id"]) {
      assert.deepEqual(second.header(header), first.header(header));
    }
  });
}

const CACHES = ["cache-", "private-cache-", "presence-cache-"];
if (!OPENS_SEALED) CACHES.push("private-encrypted-cache-");
for (const prefix of CACHES) {
  test(`${SDK}: cache_miss on ${prefix}, once for all who miss it, and not when there is something`, async (t) => {
    const name = fresh(`${prefix}price`);
    const clients = [await hookedClient(t, { user: "ada" }), await hookedClient(t, { user: "ada" })];
    await Promise.all(clients.map((pusher) => subscribed(pusher, name)));
    await hookedApi().trigger(name, "price", { p: 1 });
    const late = await hookedClient(t, { user: "ada" });
    await subscribed(late, name);
    for (const pusher of [...clients, late]) pusher.disconnect();
    const isRoom = prefix.startsWith("presence-");
    const coming = [occupied, ...(isRoom ? [added("ada")] : []), { name: "cache_miss" }];
    await told(name, [...coming, ...(isRoom ? [removed("ada")] : []), vacated]);
  });
}

test(`${SDK}: what happens at once travels in one body, where the endpoint takes batches`, async (t) => {
  const pusher = await hookedClient(t, { user: "ada" });
  pusher.signin();
  await pusher.user.signinDonePromise;
  const names = ["news", "private-news", "presence-news", "cache-news"].flatMap((kind) =>
    Array.from({ length: 10 }, () => fresh(kind)),
  );
  await Promise.all(names.map((name) => subscribed(pusher, name)));
  pusher.disconnect();
  for (const name of names) {
    const isRoom = name.startsWith("presence-");
    const coming = [...(isRoom ? [added("ada")] : []), ...(name.startsWith("cache-") ? [{ name: "cache_miss" }] : [])];
    await told(name, [occupied, ...coming, ...(isRoom ? [removed("ada")] : []), vacated]);
  }
  const bodies = backend.at("batched").map(({ body }) => JSON.parse(body).events);
  const of = (events) => new Set(events.map(({ channel }) => channel)).size;
  assert.ok(bodies.some((events) => events.length === BATCH_MAX), "no batch was full");
  assert.ok(bodies.some((events) => of(events) > 1), "no batch was of several channels");
});

// How long who goes may be away is the server's business alone: one SDK is enough.
if (SDK === "node") {
  test("who leaves and is back within the default grace has never left", async (t) => {
    const presence = KINDS.slice(0, 4);
    const patient = await Backend.start(RECEIVER, PATIENT, (request) => checkRequest(request, PATIENT.key));
    t.after(() => patient.stop());
    const webhooks = [{ url: patient.url("patient"), event_types: presence, concurrency: 1 }];
    const server = await Server.start({ name: "webhooks-grace", apps: [{ ...PATIENT, webhooks }] });
    t.after(() => server.kill());
    const toldOf = (channel) => patient.told("patient", channel).sent.map(({ channel, ...event }) => event);

    const where = { app: PATIENT, port: server.port };
    const [news, room, other] = [fresh("news"), fresh("presence-room"), fresh("other")];
    const [ada, eve] = [await connected(t, { ...where, user: "ada" }), await connected(t, where)];
    for (const name of [news, room]) await subscribed(ada, name);
    await subscribed(eve, other);
    const there = [occupied, added("ada")];
    await until("ada is told of", () => toldOf(room).length === there.length);

    const before = ada.connection.socket_id;
    ada.disconnect();
    const isOccupied = async (name) => (await (await api(PATIENT, server).get({ path: `/channels/${name}` })).json()).occupied;
    await until("ada is gone", async () => !(await isOccupied(news)) && !(await isOccupied(room)));
    eve.unsubscribe(other);
    ada.connect();
    await until("ada is back", async () => (await isOccupied(news)) && (await isOccupied(room)));
    assert.notEqual(ada.connection.socket_id, before);

    // Eve went later, and one request is on its way at a time: what was to be told of ada would have been told by now.
    await until("eve is told of", () => toldOf(other).length === 2, 10_000);
    assert.deepEqual(toldOf(other), [occupied, vacated]);
    assert.deepEqual(toldOf(news), [occupied]);
    assert.deepEqual(toldOf(room), there);

    const leaving = Date.now();
    ada.disconnect();
    const hasLeft = () => toldOf(room).length > 3 && toldOf(news).length > 1;
    await until("ada has left for good", hasLeft, 10_000);
    assert.deepEqual(toldOf(room), [...there, removed("ada"), vacated]);
    assert.deepEqual(toldOf(news), [occupied, vacated]);
    const { time_ms } = JSON.parse(patient.at("patient").at(-1).body);
    assert.ok(time_ms - leaving >= 2_900, `told after ${time_ms - leaving} ms`);
  });
}

test(`${SDK}: every kind was accepted, alone and in batches`, async () => {
  backend.assertSound();
  for (const endpoint of ["single", "batched", ...(OPENS_SEALED ? ["sealed"] : [])]) {
    const bodies = backend.at(endpoint).map(({ body }) => JSON.parse(body).events);
    const kinds = bodies.flat().map(({ name }) => name);
    const counted = KINDS.map((kind) => `${kinds.filter((name) => name === kind).length} ${kind}`);
    console.log(`   /${endpoint}: ${bodies.length} bodies: ${counted.join(", ")}`);
    assert.deepEqual([...new Set(kinds)].sort(), endpoint === "sealed" ? ["client_event"] : [...KINDS].sort());
  }
});

await run(async () => {
  backend.stop();
  await server.kill();
});
