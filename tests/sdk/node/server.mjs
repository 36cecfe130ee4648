// Starts the built `fanwire` as a child process on free ports and stops it by its pid.

import { spawn } from "node:child_process";
import { mkdirSync, openSync, closeSync, readFileSync, writeFileSync, existsSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { APPS } from "./apps.mjs";
import { until, within } from "./harness.mjs";

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../..");
export const TARGET = path.resolve(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, "target"));
/** Logs, screenshots and what else the tests leave behind. */
export const OUTPUT = path.join(TARGET, "sdk");

const HOST = "127.0.0.1";
const BINARY = process.env.FANWIRE_BIN ?? path.join(TARGET, "debug", "fanwire");

export async function freePort() {
  const server = createServer();
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, HOST, resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/**
 * A running server. `apps: null` leaves them out: development mode with its demo app. `prefix` is its `path_prefix`,
 * `sections` are further sections of its configuration.
 */
export class Server {
  static async start({ name = "server", apps = APPS, port, prefix = "", sections = {} } = {}) {
    const server = new Server();
    server.name = name;
    server.apps = apps;
    server.prefix = prefix;
    server.sections = sections;
    server.host = HOST;
    server.port = port ?? (await freePort());
    server.adminPort = await freePort();
    await server.spawn();
    return server;
  }

  /** Starts the process; also after `stop` or `kill`, on the same port. */
  async spawn() {
    if (!existsSync(BINARY)) throw new Error(`there is no ${BINARY}: run \`cargo build\` first, or set FANWIRE_BIN`);
    mkdirSync(OUTPUT, { recursive: true });
    const config = path.join(OUTPUT, `${this.name}.json`);
    this.log = path.join(OUTPUT, `${this.name}.log`);
    writeFileSync(
      config,
      JSON.stringify(
        {
          server: { host: this.host, port: this.port, path_prefix: this.prefix },
          admin: { host: this.host, port: this.adminPort },
          drain: { drain_s: 1 },
          ...(this.apps ? { apps: this.apps } : {}),
          ...this.sections,
        },
        null,
        2,
      ),
    );
    const log = openSync(this.log, "a");
    // Variables of the caller's own set-up must not reach the server under test.
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("FANWIRE_")));
    this.child = spawn(BINARY, ["--config", config], { stdio: ["ignore", log, log], cwd: OUTPUT, env });
    closeSync(log);
    this.exited = new Promise((resolve) => {
      this.child.once("error", (error) => resolve(error));
      this.child.once("exit", (code, signal) => resolve(signal ?? code));
    });
    let gone;
    this.exited.then((how) => (gone = how));
    await until(
      `${this.url}/ready answers 200`,
      async () => {
        if (gone !== undefined) throw new Error(`the server ended (${gone}) before it was ready:\n${this.tail()}`);
        return fetch(`${this.url}/ready`).then((r) => r.ok, () => false);
      },
      15_000,
    );
  }

  get url() {
    return `${this.sections.tls ? "https" : "http"}://${this.host}:${this.port}`;
  }

  get adminUrl() {
    return `http://${this.host}:${this.adminPort}`;
  }

  /** The last lines of its log. */
  tail(lines = 30) {
    return readFileSync(this.log, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
  }

  /** Drains: SIGTERM, and waits until the process has gone. Answers its exit code, or the signal that ended it. */
  async stop() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return this.exited;
    this.child.kill("SIGTERM");
    return within(20_000, "the drain", this.exited);
  }

  /** SIGKILL: no goodbye. */
  async kill() {
    this.child.kill("SIGKILL");
    return this.exited;
  }
}
