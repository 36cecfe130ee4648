#!/usr/bin/env node
// Runs the official clients, unmodified, against the built server: `node tests/sdk/run.mjs [SUITE…]`.
//
// Each suite is a program of its own that prints `ok NAME` and `not ok NAME`, and `done N` at its end (see
// `node/harness.mjs`). It finds the server, the auth endpoint and the app's credentials in `SDK_…` variables. What the
// suites need is installed by `tests/sdk/install`. The last line printed is the summary; any failure exits with 1.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { ENCRYPTION_MASTER_KEY, MAIN } from "./node/apps.mjs";
import { startAuthEndpoint } from "./node/auth.mjs";
import { OUTPUT, Server } from "./node/server.mjs";

const HERE = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const SUITE_DEADLINE_MS = 240_000;

/** `needs`: programs without which the suite is not run, and said not to be. `build`: answers why it failed, if so. */
const SUITES = {
  "pusher-js": { command: [process.execPath, "pusher-js.mjs"], folder: "node" },
  "laravel-echo": { command: [process.execPath, "laravel-echo.mjs"], folder: "node" },
  "http-api": { command: [process.execPath, "http-api.mjs"], folder: "node" },
  rollout: { command: [process.execPath, "rollout.mjs"], folder: "node" },
  tls: { command: [process.execPath, "tls.mjs"], folder: "node", needs: ["openssl"] },
  browser: { command: [process.execPath, "browser.mjs"], folder: "node" },
  python: { command: [path.join(HERE, "python/.venv/bin/python"), "clients.py"], folder: "python" },
  go: { command: goProgram("clients"), folder: "go", needs: ["go"], build: () => buildGo("clients", ".") },
  java: { command: javaProgram("Clients"), folder: "java", needs: ["java", "javac", "mvn"], build: buildJava },
  "webhooks-node": webhooks("node", [process.execPath, "receiver.mjs"]),
  "webhooks-python": webhooks("python", [path.join(HERE, "python/.venv/bin/python"), "../python/receiver.py"]),
  "webhooks-go": {
    ...webhooks("go", goProgram("receiver")),
    needs: ["go"],
    build: () => buildGo("receiver", "./receiver"),
  },
  "webhooks-java": {
    ...webhooks("java", javaProgram("Receiver")),
    needs: ["java", "javac", "mvn"],
    build: buildJava,
  },
};

/** What the server sends, judged by the receiver of one official SDK; see `node/webhooks.mjs`. */
function webhooks(sdk, receiver) {
  return { command: [process.execPath, "webhooks.mjs", sdk, ...receiver], folder: "node" };
}

function goProgram(name) {
  return [path.join(OUTPUT, "go", name)];
}

function javaProgram(name) {
  const output = path.join(OUTPUT, "java");
  // What it says is UTF-8 whatever the machine's language is.
  const speech = "-Dfile.encoding=UTF-8 -Dstdout.encoding=UTF-8";
  return ["sh", "-c", `exec java ${speech} -cp "${output}/classes:$(cat "${output}/classpath")" ${name}`];
}

const wanted = process.argv.slice(2);
for (const name of wanted) {
  if (!(name in SUITES)) fail(`there is no suite "${name}"; there are: ${Object.keys(SUITES).join(", ")}`);
}

const total = { passed: 0, failed: 0, notRun: [] };
const authEndpoint = await startAuthEndpoint();
let server;
try {
  server = await Server.start();
} catch (error) {
  fail(error.message);
}
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => server.kill().then(() => process.exit(1)));
}

for (const [name, suite] of Object.entries(SUITES)) {
  if (wanted.length === 0 || wanted.includes(name)) await runSuite(name, suite);
}

const how = await server.stop().catch((error) => error.message);
authEndpoint.close();
if (how === 0) {
  total.passed += 1;
  console.log("ok server: drained and ended with 0");
} else {
  total.failed += 1;
  console.log(`not ok server: ended with ${how} instead of 0`);
}
if (total.failed > 0) console.log(`\nThe last lines of ${server.log}:\n${server.tail()}`);
if (total.notRun.length > 0) {
  console.log("\n" + "!".repeat(80));
  for (const line of total.notRun) console.log(`!! NOT RUN: ${line}`);
  console.log("!".repeat(80));
}
console.log(
  `official clients: ${total.passed} passed, ${total.failed} failed, ${total.notRun.length} suites not run`,
);
process.exit(total.failed > 0 ? 1 : 0);

function fail(problem) {
  console.error(problem);
  console.log("official clients: 0 passed, 1 failed, nothing run");
  process.exit(1);
}

async function runSuite(name, { command, folder, needs = [], build }) {
  const missing = needs.filter((program) => !isInstalled(program));
  if (missing.length > 0) {
    total.notRun.push(`suite "${name}": there is no ${missing.join(", no ")} on this machine`);
    return;
  }
  console.log(`\n── ${name}`);
  const started = Date.now();
  const cwd = path.join(HERE, folder);
  const problem = build?.();
  if (problem) {
    total.failed += 1;
    console.log(`not ok ${name}: build\n${problem.replace(/^/gm, "    ")}`);
    return;
  }
  const counts = await runProgram(name, command, cwd);
  total.passed += counts.passed;
  total.failed += counts.failed;
  console.log(`── ${name}: ${counts.passed} passed, ${counts.failed} failed (${((Date.now() - started) / 1000).toFixed(1)} s)`);
}

async function runProgram(name, [program, ...args], cwd) {
  const counts = { passed: 0, failed: 0 };
  let announced;
  // Some clients print stack traces of things they put up with: shown only if a test fails.
  const complaintsPath = path.join(OUTPUT, `${name}.stderr`);
  const complaints = openSync(complaintsPath, "w");
  const child = spawn(program, args, {
    cwd,
    stdio: ["ignore", "pipe", complaints],
    env: {
      ...process.env,
      SDK_HOST: server.host,
      SDK_PORT: String(server.port),
      SDK_APP_ID: MAIN.id,
      SDK_KEY: MAIN.key,
      SDK_SECRET: MAIN.secret,
      SDK_MASTER_KEY: ENCRYPTION_MASTER_KEY,
      SDK_AUTH_URL: authEndpoint.url,
    },
  });
  const timer = setTimeout(() => {
    console.log(`${name} ran longer than ${SUITE_DEADLINE_MS / 1000} s and is ended`);
    child.kill("SIGKILL");
  }, SUITE_DEADLINE_MS);
  const ended = new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => resolve(signal ?? code));
  });
  for await (const line of createInterface({ input: child.stdout })) {
    console.log(line);
    if (line.startsWith("ok ")) counts.passed += 1;
    else if (line.startsWith("not ok ")) counts.failed += 1;
    else if (line.startsWith("done ")) announced = Number(line.slice("done ".length));
  }
  const how = await ended;
  clearTimeout(timer);
  closeSync(complaints);
  const clean = how === 0 && announced > 0 && announced === counts.passed;
  if (!clean && counts.failed === 0) {
    counts.failed = 1;
    console.log(`not ok ${name}: ended with ${how} after ${counts.passed} of ${announced ?? "unknown many"} tests`);
  }
  if (counts.failed > 0) console.log(readFileSync(complaintsPath, "utf8").trimEnd());
  return counts;
}

function isInstalled(program) {
  return spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
}

function command(program, args, options) {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: "utf8", ...options });
  return status === 0 ? undefined : `${program} ${args.join(" ")}\n${error ?? ""}${stdout ?? ""}${stderr ?? ""}`;
}

function buildGo(program, source) {
  const cwd = path.join(HERE, "go");
  const env = { ...process.env, GOTOOLCHAIN: "local", GOFLAGS: "-modcacherw -buildvcs=false", GOMODCACHE: path.join(OUTPUT, "go/modules") };
  return command("go", ["build", "-o", path.join(OUTPUT, "go", program), source], { cwd, env });
}

function buildJava() {
  const cwd = path.join(HERE, "java");
  const output = path.join(OUTPUT, "java");
  const stamp = path.join(output, "built");
  const hash = createHash("sha256");
  for (const file of ["pom.xml", ...readdirSync(path.join(cwd, "src")).sort().map((file) => `src/${file}`)]) {
    hash.update(readFileSync(path.join(cwd, file)));
  }
  const sources = hash.digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === sources) return undefined;
  mkdirSync(output, { recursive: true });
  const problem = command(
    "mvn",
    [
      "--batch-mode",
      "--quiet",
      `-Dmaven.repo.local=${path.join(OUTPUT, "m2")}`,
      `-Doutput=${output}`,
      `-Dmdep.outputFile=${path.join(output, "classpath")}`,
      "compiler:compile",
      "dependency:build-classpath",
    ],
    { cwd },
  );
  if (!problem) writeFileSync(stamp, sources);
  return problem;
}
