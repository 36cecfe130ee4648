// The apps the server under test is configured with, and the users the auth endpoint knows.

/** Client-event, watchlist and count features on: what most tests use. */
export const MAIN = {
  id: "100",
  key: "sdk-key",
  secret: "sdk-secret",
  client_events: true,
  subscription_count_events: true,
  watchlist: true,
  watch_grace_ms: 300,
};

/** Asks clients to ping after two silent seconds. */
export const BRISK = { id: "200", key: "brisk-key", secret: "brisk-secret", activity_timeout_s: 2 };

/** Everything at its default: client events and counts off. */
export const PLAIN = { id: "300", key: "plain-key", secret: "plain-secret" };

/** Switched off. */
export const DISABLED = { id: "400", key: "disabled-key", secret: "disabled-secret", enabled: false };

/** Closes whoever has shown no identity after two seconds. */
export const AUTHORIZED = {
  id: "500",
  key: "authorized-key",
  secret: "authorized-secret",
  authorized_connections: true,
  auth_timeout_s: 2,
};

/** Room for two sockets. */
export const SMALL = { id: "600", key: "small-key", secret: "small-secret", connections_max: 2 };

export const APPS = [MAIN, BRISK, PLAIN, DISABLED, AUTHORIZED, SMALL];

/** Key of the publishers of encrypted channels; the server never sees it. */
export const ENCRYPTION_MASTER_KEY = Buffer.from("an example of a 32 byte long key").toString("base64");
