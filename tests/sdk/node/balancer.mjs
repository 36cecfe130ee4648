// A load balancer in front of some servers: passes TCP on, one server after the other, and obeys `/ready`, which it asks
// once a second as an orchestrator does.

import { connect, createServer } from "node:net";

const PROBE_MS = 1000;

export class Balancer {
  static async start() {
    const balancer = new Balancer();
    balancer.servers = [];
    /** How many connections it has passed on, how many of them asked for a socket, and how many it had nobody for. */
    balancer.passed = 0;
    balancer.upgrades = 0;
    balancer.turnedAway = 0;
    balancer.sockets = new Set();
    balancer.listener = createServer({ allowHalfOpen: true }, (socket) => balancer.#pass(socket));
    await new Promise((resolve) => balancer.listener.listen(0, "127.0.0.1", resolve));
    balancer.host = "127.0.0.1";
    balancer.port = balancer.listener.address().port;
    balancer.timer = setInterval(() => balancer.probe(), PROBE_MS);
    return balancer;
  }

  /** Sends connections to a server from its first yes on. */
  async add(server) {
    this.servers.push({ server, isReady: false });
    await this.probe();
  }

  remove(server) {
    this.servers = this.servers.filter((one) => one.server !== server);
  }

  isReady(server) {
    return this.servers.some((one) => one.server === server && one.isReady);
  }

  async probe() {
    await Promise.all(
      this.servers.map(async (one) => {
        const signal = AbortSignal.timeout(PROBE_MS);
        one.isReady = await fetch(`${one.server.adminUrl}/ready`, { signal }).then((r) => r.ok, () => false);
      }),
    );
  }

  #pass(socket) {
    const ready = this.servers.filter((one) => one.isReady);
    if (ready.length === 0) {
      this.turnedAway += 1;
      return socket.destroy();
    }
    const { server } = ready[this.passed++ % ready.length];
    socket.once("data", (first) => (this.upgrades += first.toString("latin1").startsWith("GET /app/") ? 1 : 0));
    const inner = connect({ port: server.port, host: server.host, allowHalfOpen: true });
    for (const [from, to] of [[socket, inner], [inner, socket]]) {
      this.sockets.add(from);
      from.setNoDelay(true);
      from.pipe(to);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        this.sockets.delete(from);
        to.destroySoon();
      });
    }
  }

  stop() {
    clearInterval(this.timer);
    this.listener.close();
    for (const socket of this.sockets) socket.destroy();
  }
}
