// pusher, the official Node SDK for an app's backend: the HTTP API.

import assert from "node:assert/strict";
import { MAIN, PLAIN } from "./apps.mjs";
import { api, connected, get, HOST, PORT, subscribed } from "./clients.mjs";
import { sdkFor } from "./auth.mjs";
import { collect, fresh, next, run, test, until } from "./harness.mjs";

/** The status and text with which a call is refused. */
async function refused(call) {
  const error = await call.then(
    (response) => assert.fail(`accepted with ${response.status}`),
    (error) => error,
  );
  assert.equal(error.name, "PusherRequestError", error.stack);
  return { status: error.status, error: JSON.parse(error.body).error };
}

test("trigger answers an empty object and reaches several channels", async (t) => {
  const pusher = await connected(t);
  const names = [fresh("a"), fresh("b"), fresh("c")];
  const arrivals = [];
  for (const name of names) arrivals.push(next(await subscribed(pusher, name), "ev"));
  const response = await api().trigger(names, "ev", { n: 1 });
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {});
  for (const { data } of await Promise.all(arrivals)) assert.deepEqual(data, { n: 1 });
});

test("trigger leaves out the socket it names", async (t) => {
  const name = fresh("except");
  const [one, two] = [await connected(t), await connected(t)];
  const mine = collect(await subscribed(one, name), "ev");
  const theirs = await subscribed(two, name);
  const arrival = next(theirs, "ev", { where: (n) => n === 2 });
  await api().trigger(name, "ev", 1, { socket_id: one.connection.socket_id });
  await api().trigger(name, "ev", 2);
  await arrival;
  await until("the second has arrived", () => mine.length > 0);
  assert.deepEqual(mine, [2]);
});

test("trigger with info answers the counts", async (t) => {
  const [room, news] = [fresh("presence-room"), fresh("news")];
  const pusher = await connected(t, { user: "ada" });
  await subscribed(pusher, room);
  await subscribed(pusher, news);
  const response = await api().trigger([room, news], "ev", {}, { info: "user_count,subscription_count" });
  assert.deepEqual(await response.json(), {
    channels: { [room]: { user_count: 1, subscription_count: 1 }, [news]: { subscription_count: 1 } },
  });
});

test("batch: in order, with info where it was asked", async (t) => {
  const [one, two] = [fresh("a"), fresh("b")];
  const pusher = await connected(t);
  const seen = [];
  for (const name of [one, two]) {
    (await subscribed(pusher, name)).bind_global((event, data) => event.startsWith("pusher:") || seen.push(data));
  }
  const plain = await api().triggerBatch([
    { channel: one, name: "ev", data: { n: 1 } },
    { channel: two, name: "ev", data: { n: 2 } },
    { channel: one, name: "ev", data: { n: 3 } },
  ]);
  assert.deepEqual(await plain.json(), {});
  await until("all have arrived", () => seen.length === 3);
  assert.deepEqual(seen.map(({ n }) => n).sort(), [1, 2, 3]);
  const counted = await api().triggerBatch([
    { channel: one, name: "ev", data: "x", info: "subscription_count" },
    { channel: two, name: "ev", data: "y" },
  ]);
  assert.deepEqual(await counted.json(), { batch: [{ subscription_count: 1 }, {}] });
});

test("channels: all, by prefix, with counts; and none is an object", async (t) => {
  const prefix = fresh("presence-list");
  const pusher = await connected(t, { user: "ada" });
  await subscribed(pusher, `${prefix}-x`);
  const other = fresh("listed");
  await subscribed(pusher, other);
  const { channels } = await get("/channels");
  assert.deepEqual([channels[other], channels[`${prefix}-x`]], [{}, {}]);
  assert.deepEqual(await get("/channels", { filter_by_prefix: prefix, info: "user_count" }), {
    channels: { [`${prefix}-x`]: { user_count: 1 } },
  });
  assert.deepEqual(await get("/channels", { filter_by_prefix: "nothing-begins-so" }), { channels: {} });
});

test("one channel: occupied, counts, cache", async (t) => {
  const name = fresh("presence-cache-room");
  const empty = await get(`/channels/${name}`, { info: "user_count,subscription_count,cache" });
  assert.deepEqual(empty, { occupied: false, user_count: 0, subscription_count: 0, cache: null });
  await subscribed(await connected(t, { user: "ada" }), name);
  await subscribed(await connected(t, { user: "ada" }), name);
  await api().trigger(name, "ev", { p: 1 });
  const full = await get(`/channels/${name}`, { info: "user_count,subscription_count,cache" });
  const { ttl, data } = full.cache;
  assert.deepEqual({ ...full, cache: data }, { occupied: true, user_count: 1, subscription_count: 2, cache: '{"p":1}' });
  assert.ok(Number.isInteger(ttl) && ttl > 0 && ttl <= 1800, `ttl ${ttl}`);
});

test("the users of a presence channel", async (t) => {
  const name = fresh("presence-users");
  assert.deepEqual(await get(`/channels/${name}/users`), { users: [] });
  await subscribed(await connected(t, { user: "ada" }), name);
  await subscribed(await connected(t, { user: "bob" }), name);
  const { users } = await get(`/channels/${name}/users`);
  assert.deepEqual(users.map(({ id }) => id).sort(), ["ada", "bob"]);
});

test("user ids and channel names of every allowed character", async (t) => {
  const odd = "_-=@,.;";
  const user = fresh(`u${odd}`);
  const name = fresh(`presence-${odd}`);
  const pusher = await connected(t, { user: encodeURIComponent(user) });
  pusher.signin();
  await pusher.user.signinDonePromise;
  await subscribed(pusher, name);
  assert.deepEqual(await get(`/channels/${name}/users`), { users: [{ id: user }] });
  const arrival = next(pusher.user, "ev");
  await api().sendToUser(user, "ev", 1);
  await arrival;
  const gone = next(pusher.connection, "disconnected");
  assert.deepEqual(await (await api().terminateUserConnections(user)).json(), {});
  await gone;
});

test("terminating a user nobody is signed in as is success", async () => {
  assert.deepEqual(await (await api().terminateUserConnections("nobody")).json(), {});
});

test("events to one user are not heard on other connections, nor listed", async (t) => {
  const user = fresh("user");
  const [theirs, other] = [await connected(t, { user }), await connected(t, { user: "bob" })];
  for (const pusher of [theirs, other]) {
    pusher.signin();
    await pusher.user.signinDonePromise;
  }
  const stray = collect(other.user, "ev");
  const arrival = next(theirs.user, "ev");
  await api().sendToUser(user, "ev", { n: 1 });
  assert.deepEqual((await arrival).data, { n: 1 });
  const fence = next(other.user, "fence");
  await api().sendToUser("bob", "fence", {});
  await fence;
  assert.deepEqual(stray, []);
  assert.deepEqual(Object.keys((await get("/channels")).channels).filter((name) => name.startsWith("#")), []);
});

test("a wrong secret, a wrong key and another app's key are 401", async () => {
  const where = { host: HOST, port: PORT };
  const wrong = await refused(sdkFor({ ...MAIN, secret: "wrong" }, where).trigger("x", "ev", {}));
  assert.equal(wrong.status, 401);
  assert.match(wrong.error, /POST\n\/apps\/100\/events\n/, "the text the server signed is told");
  assert.equal((await refused(sdkFor({ ...MAIN, key: "unknown" }, where).trigger("x", "ev", {}))).status, 401);
  const swapped = { ...PLAIN, id: MAIN.id };
  assert.equal((await refused(sdkFor(swapped, where).trigger("x", "ev", {}))).status, 401);
});

test("an unknown app is 404, a disabled one 403", async () => {
  const where = { host: HOST, port: PORT };
  assert.equal((await refused(sdkFor({ ...MAIN, id: "999" }, where).trigger("x", "ev", {}))).status, 404);
  const disabled = { id: "400", key: "disabled-key", secret: "disabled-secret" };
  assert.equal((await refused(sdkFor(disabled, where).trigger("x", "ev", {}))).status, 403);
});

test("bad requests are 400 and too much data is 413", async () => {
  assert.equal((await refused(api().trigger("x", "pusher:ev", {}))).status, 400);
  assert.equal((await refused(api().get({ path: "/channels", params: { info: "user_count" } }))).status, 400);
  assert.equal((await refused(api().get({ path: "/channels/news/users" }))).status, 400);
  assert.equal((await refused(api().trigger("x", "ev", "y".repeat(10 * 1024 + 1)))).status, 413);
  assert.equal((await api().trigger("x", "ev", "y".repeat(10 * 1024))).status, 200);
  const hundred = Array.from({ length: 100 }, (_, n) => `many-${n}`);
  assert.equal((await api().trigger(hundred, "ev", {})).status, 200);
  const eleven = Array.from({ length: 11 }, () => ({ channel: "x", name: "ev", data: "" }));
  assert.equal((await refused(api().triggerBatch(eleven))).status, 400);
});

await run();
