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

/** The apps of the server that all suites share. */
export const APPS = [MAIN, BRISK, PLAIN, DISABLED, AUTHORIZED, SMALL];

/**
 * Its key is being replaced: of those that may be used, `hooked-old` is the oldest. For suites that start a server of
 * their own and know where its webhooks are to go.
 */
export const HOOKED = {
  id: "700",
  keys: [
    { key: "hooked-next", secret: "next-secret", active_from: "2999-01-01T00:00:00Z" },
    { key: "hooked-new", secret: "new-secret", active_from: "2020-01-01T00:00:00Z" },
    { key: "hooked-old", secret: "old-secret", active_from: "2015-01-01T00:00:00Z" },
    { key: "hooked-gone", secret: "gone-secret", active_from: "2010-01-01T00:00:00Z", expires_at: "2015-01-01T00:00:00Z" },
  ],
  client_events: true,
  webhook_grace_ms: 200,
};

/** Its webhooks have the grace that is the default. */
export const PATIENT = { id: "800", key: "patient-key", secret: "patient-secret" };

/** An app as a client or a back end sees it that uses this key of it. */
export function withKey(app, name) {
  const { key, secret } = keysOf(app).find(({ key }) => key === name);
  return { ...app, key, secret };
}

/** The app that this key belongs to, as `withKey` answers it. */
export function appOf(name) {
  const app = [...APPS, HOOKED, PATIENT].find((app) => keysOf(app).some(({ key }) => key === name));
  return app && withKey(app, name);
}

function keysOf(app) {
  return [app, ...(app.keys ?? [])];
}

/** Key of the publishers of encrypted channels; the server never sees it. */
export const ENCRYPTION_MASTER_KEY = Buffer.from("an example of a 32 byte long key").toString("base64");
