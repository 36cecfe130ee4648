// A back end as an operator has it: webhook endpoints made with an official SDK, which run as a program of their own and
// report what arrives.
//
// Such a receiver listens on a port of its choice, takes every path, and prints lines of JSON. The first is `{port}`;
// then there is one for each request, before its answer:
//
//   path, headers    as they came, the names of headers in lower case
//   body             the text that was signed
//   problem          why the SDK refuses it (it is then answered 401), or null
//   seen             what the SDK made of it, {time_ms, events}; null if it refuses it, or only checks the signature
//
// It knows `HOOKED_KEY` and `HOOKED_SECRET`, and the key of encrypted channels as `SDK_MASTER_KEY`.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { within } from "./harness.mjs";

export class Backend {
  /** Starts the program and waits until it listens. `check` is called with each request as it arrives, and throws. */
  static async start([program, ...args], { key, secret }, check) {
    const backend = new Backend();
    backend.requests = [];
    backend.problems = [];
    const env = { ...process.env, HOOKED_KEY: key, HOOKED_SECRET: secret };
    backend.child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"], env });
    const listening = new Promise((resolve, reject) => {
      backend.child.once("error", reject);
      backend.child.once("exit", (code, signal) => {
        const problem = new Error(`the receiver ended with ${signal ?? code}`);
        backend.problems.push(problem);
        reject(problem);
      });
      createInterface({ input: backend.child.stdout }).on("line", (line) => {
        const report = JSON.parse(line);
        if (report.port) resolve(report.port);
        else backend.#take(report, check);
      });
    });
    backend.port = await within(20_000, "the start of the receiver", listening);
    return backend;
  }

  #take(report, check) {
    try {
      const request = { ...report };
      request.header = (name) => request.headers.filter(([key]) => key === name).map(([, value]) => value);
      this.requests.push(request);
      check(request, this);
    } catch (error) {
      error.message += `\n${JSON.stringify(report, null, 2)}`;
      this.problems.push(error);
    }
  }

  /** Where the server is to send what goes to this endpoint. */
  url(endpoint) {
    return `http://127.0.0.1:${this.port}/${endpoint}`;
  }

  /** The requests that came to an endpoint, in order. */
  at(endpoint) {
    return this.requests.filter(({ path }) => path === `/${endpoint}`);
  }

  /** The events of a channel that came to an endpoint, in order, as they stood in the bodies and as the SDK saw them. */
  told(endpoint, channel) {
    this.assertSound();
    const of = (events) => (events ?? []).filter((event) => event.channel === channel);
    const requests = this.at(endpoint);
    return {
      sent: requests.flatMap(({ body }) => of(JSON.parse(body).events)),
      seen: requests.flatMap(({ seen }) => of(seen?.events)),
    };
  }

  /** Throws the first problem that there was with any request. */
  assertSound() {
    if (this.problems.length > 0) throw this.problems[0];
  }

  stop() {
    this.child.removeAllListeners("exit");
    this.child.kill("SIGKILL");
  }
}

/** What is true of every request, whatever is in it. */
export function checkRequest({ header, body, problem }, key) {
  assert.equal(problem, null, "the SDK refuses what was sent");
  assert.deepEqual(header("content-type"), ["application/json"]);
  assert.deepEqual(header("x-pusher-key"), [key]);
  assert.match(header("x-pusher-signature").join(), /^[0-9a-f]{64}$/);
  assert.match(header("x-fanwire-webhook-id").join(), /^[0-9a-f]{32}$/);
  const { time_ms, events, ...rest } = JSON.parse(body);
  assert.deepEqual(rest, {});
  assert.ok(Number.isInteger(time_ms) && Math.abs(Date.now() - time_ms) < 60_000, `time_ms ${time_ms}`);
  assert.ok(events.length > 0);
  for (const event of events) assert.ok(!event.channel.startsWith("#"), "a user's own channel is nobody's business");
}
