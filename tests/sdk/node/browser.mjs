// The demo page in two tabs of Chromium, and pusher-js's browser builds. Screenshots go to target/sdk/.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";
import { MAIN } from "./apps.mjs";
import { api, AUTH_URL, options } from "./clients.mjs";
import { fresh, run, test, until } from "./harness.mjs";
import { OUTPUT, Server } from "./server.mjs";

const require = createRequire(import.meta.url);

function findChromium() {
  const names = [process.env.CHROMIUM, "chromium", "google-chrome", "chromium-browser"].filter(Boolean);
  for (const name of names) {
    const { status, stdout } = spawnSync("sh", ["-c", 'command -v "$0"', name], { encoding: "utf8" });
    if (status === 0) return stdout.trim();
  }
  throw new Error("no Chromium: run tests/sdk/install, or set CHROMIUM=/path");
}

const profile = mkdtempSync(path.join(tmpdir(), "fanwire-chromium-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: findChromium(),
  headless: true,
  viewport: { width: 1100, height: 980 },
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
browser.setDefaultTimeout(8000);
await browser.grantPermissions(["clipboard-read", "clipboard-write"]);

// No apps configured: development mode, which serves the page.
const server = await Server.start({ name: "demo", apps: null });

/** A new tab with `url`; whatever it complains about is collected in `tab.complaints`. */
async function open(t, url) {
  const tab = await browser.newPage();
  tab.complaints = [];
  tab.on("pageerror", (error) => tab.complaints.push(String(error)));
  tab.on("console", (message) => message.type() === "error" && tab.complaints.push(message.text()));
  t.after(() => tab.close());
  await tab.goto(url);
  return tab;
}

async function openDemo(t) {
  const tab = await open(t, server.url);
  await tab.locator('#state[data-state="connected"]').waitFor();
  await tab.locator("#members .me").waitFor();
  return tab;
}

const text = (tab, selector) => tab.locator(selector).innerText();

test("demo: connects, shows its socket id and itself in the lobby", async (t) => {
  const tab = await openDemo(t);
  assert.match(await text(tab, "#socket-id"), /^\d+\.\d+$/);
  assert.match(await text(tab, "#members"), /\(you\)/);
  assert.equal(await tab.locator("#notice").isVisible(), false);
  assert.deepEqual(tab.complaints, []);
});

test("demo: two tabs see each other, write to each other, and see one leave", async (t) => {
  const [one, two] = [await openDemo(t), await openDemo(t)];
  const name = (await text(two, "#members .me")).replace(" (you)", "").trim();
  for (const tab of [one, two]) await until("two members", async () => (await tab.locator("#members li").count()) === 2);

  await two.locator("#message").pressSequentially("Hello <b>there</b>");
  await one.locator("#typing", { hasText: `${name} is typing` }).waitFor();
  await two.locator("#message").press("Enter");
  await one.locator("#chat-log li", { hasText: "Hello <b>there</b>" }).waitFor();
  await two.locator("#chat-log li", { hasText: "Hello <b>there</b>" }).waitFor();

  await one.locator("#trigger").click();
  for (const tab of [one, two]) await tab.locator("#public-log li", { hasText: "hello" }).waitFor();
  await one.locator("#trigger-result", { hasText: "Accepted" }).waitFor();

  await one.screenshot({ path: path.join(OUTPUT, "demo-light.png"), fullPage: true });
  await one.emulateMedia({ colorScheme: "dark" });
  await one.screenshot({ path: path.join(OUTPUT, "demo-dark.png"), fullPage: true });
  await one.setViewportSize({ width: 360, height: 740 });
  await one.screenshot({ path: path.join(OUTPUT, "demo-narrow.png"), fullPage: true });
  const overflow = await one.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
  assert.equal(overflow, 0, "nothing to scroll sideways on a telephone");

  await two.close();
  await one.locator("#chat-log li", { hasText: `${name} left` }).waitFor();
  assert.equal(await one.locator("#members li").count(), 1);
  assert.deepEqual(one.complaints, []);
});

test("demo: the shell snippet, copied and run, reaches the page", async (t) => {
  const tab = await openDemo(t);
  await tab.locator('[data-copy="snippet-curl"]').click();
  const snippet = await tab.evaluate("navigator.clipboard.readText()");
  assert.equal(snippet, await tab.locator("#snippet-curl").textContent());
  const { status, stdout, stderr } = spawnSync("bash", ["-c", snippet], { encoding: "utf8", timeout: 10_000 });
  assert.equal(stdout, "{}", stderr);
  assert.equal(status, 0);
  await tab.locator("#public-log li", { hasText: "curl" }).waitFor();
});

test("demo: the browser snippet works as it stands", async (t) => {
  const tab = await openDemo(t);
  const heard = tab.waitForEvent("console", (message) => message.text().includes("snippet"));
  await tab.evaluate(`${await tab.locator("#snippet-js").textContent()}
    window.snippet = pusher;
    pusher.channel("demo").bind("pusher:subscription_succeeded", () => trigger("demo", "hello", { from: "snippet" }));`);
  await heard;
});

test("demo: below a path prefix the page and its snippets work too", async (t) => {
  const prefixed = await Server.start({ name: "demo-prefix", apps: null, prefix: "/live/ws" });
  t.after(() => prefixed.kill());
  const tab = await open(t, `${prefixed.url}/live/ws/`);
  await tab.locator('#state[data-state="connected"]').waitFor();
  const files = await tab.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)");
  assert.ok(files.length > 0 && files.every((file) => file.startsWith(`${prefixed.url}/live/ws/`)), files.join());
  await tab.locator("#trigger").click();
  await tab.locator("#public-log li", { hasText: "hello" }).waitFor();
  assert.match(await tab.locator("#snippet-js").textContent(), /\n {2}wsPath: "\/live\/ws",\n/);
  const snippet = await tab.locator("#snippet-curl").textContent();
  assert.match(snippet, /\/live\/ws\/apps\/1\/events/);
  assert.equal(spawnSync("bash", ["-c", snippet], { encoding: "utf8", timeout: 10_000 }).stdout, "{}");
  await tab.locator("#public-log li", { hasText: "curl" }).waitFor();
  assert.deepEqual(tab.complaints, []);
});

test("demo: comes back by itself after a restart of the server", async (t) => {
  const tab = await openDemo(t);
  const before = await text(tab, "#socket-id");
  await server.kill();
  await server.spawn();
  // As in pusher-js.mjs: if its first attempt meets a closed port, the client waits some fifteen seconds.
  const another = async () => {
    const id = await text(tab, "#socket-id");
    return /^\d/.test(id) && id !== before;
  };
  await until("another socket id", another, 40_000);
  await tab.locator("#members .me").waitFor();
}, { ms: 60_000 });

for (const build of ["pusher.min.js", "pusher-with-encryption.min.js"]) {
  test(`${build}: public, private and ${build.includes("encryption") ? "encrypted" : "presence"} channel`, async (t) => {
    const tab = await open(t, `${AUTH_URL}/blank`);
    await tab.addScriptTag({ path: require.resolve(`pusher-js/dist/web/${build}`) });
    const third = build.includes("encryption") ? fresh("private-encrypted-vault") : fresh("presence-room");
    const names = [fresh("news"), fresh("private-orders"), third];
    await tab.evaluate(
      async ([key, options, names]) => {
        globalThis.arrived = [];
        const pusher = new globalThis.Pusher(key, options);
        const subscriptions = names.map((name) => {
          const channel = pusher.subscribe(name);
          channel.bind("ev", (data) => globalThis.arrived.push([name, data]));
          return new Promise((resolve, reject) => {
            channel.bind("pusher:subscription_succeeded", resolve);
            channel.bind("pusher:subscription_error", (error) => reject(new Error(JSON.stringify(error))));
          });
        });
        await Promise.all(subscriptions);
      },
      [MAIN.key, options({ user: "ada" }), names],
    );
    for (const name of names) await api().trigger(name, "ev", { to: name });
    const arrived = await until("three events", async () => {
      const all = await tab.evaluate("arrived");
      return all.length === 3 && all;
    });
    assert.deepEqual(arrived, names.map((name) => [name, { to: name }]));
  });
}

await run(async () => {
  await browser.close();
  await server.kill();
  rmSync(profile, { recursive: true, force: true });
});
