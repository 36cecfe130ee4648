// A test harness of a hundred lines, the same words in every language of this folder: a suite is a program that
// prints `ok NAME` or `not ok NAME` for each of its tests and `done N` at its end. `run.mjs` reads those lines.

const DEADLINE_MS = 20_000;

const tests = [];

/** Declares a test. `body` gets `t`, whose `after(fn)` registers what is to be undone afterwards. */
export function test(name, body, { ms = DEADLINE_MS } = {}) {
  tests.push({ name, body, ms });
}

/** Runs what was declared, one after the other, then `finish`, and ends the process. */
export async function run(finish = async () => {}) {
  process.on("unhandledRejection", (error) => {
    process.stdout.write(`not ok unhandled rejection\n${indent(error)}`);
    process.exitCode = 1;
    finish().finally(() => process.exit(1));
  });
  let failed = 0;
  for (const { name, body, ms } of tests) {
    const undo = [];
    try {
      await within(ms, "the test", body({ after: (fn) => undo.push(fn) }));
      process.stdout.write(`ok ${name}\n`);
    } catch (error) {
      failed += 1;
      process.stdout.write(`not ok ${name}\n${indent(error)}`);
    }
    for (const fn of undo.reverse()) await fn();
  }
  await finish();
  process.stdout.write(`done ${tests.length}\n`);
  process.exit(failed ? 1 : 0);
}

function indent(error) {
  const text = error instanceof Error ? error.stack : String(error);
  return text.replace(/^/gm, "    ") + "\n";
}

/** Rejects if `promise` takes longer than `ms`. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The next `event` of something with `bind` and `unbind`, as `{data, metadata}`; only one for which `where` holds. */
export function next(emitter, event, { where = () => true, ms = 5000 } = {}) {
  let listener;
  const seen = new Promise((resolve) => {
    listener = (data, metadata) => where(data) && resolve({ data, metadata });
    emitter.bind(event, listener);
  });
  return within(ms, `waiting for ${event}`, seen).finally(() => emitter.unbind(event, listener));
}

/** Everything that arrives as `event`, in order. */
export function collect(emitter, event) {
  const all = [];
  emitter.bind(event, (data) => all.push(data));
  return all;
}

/** Asks again until `probe` answers something true, and hands that on. */
export async function until(what, probe, ms = 5000) {
  const end = Date.now() + ms;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

let names = 0;
/** A channel name no other test uses. */
export function fresh(prefix) {
  names += 1;
  return `${prefix}${process.pid}-${names}`;
}
