-- Apps and their keys. Times are text in UTC, as in 2026-01-31T12:00:00Z. `settings` is a JSON object with the names
-- of an app's section in the configuration file, and holds only what differs from the defaults:
--   INSERT INTO apps (id, name, settings) VALUES ('42', 'shop', '{"client_events": true}');
--   INSERT INTO app_keys (app_key, app_id, secret) VALUES ('a-public-key', '42', 'a-long-secret');
CREATE TABLE apps (
    id VARCHAR(200) NOT NULL PRIMARY KEY,
    name VARCHAR(200),
    enabled BOOLEAN NOT NULL DEFAULT TRUE,
    settings TEXT NOT NULL DEFAULT '{}',
    created_at VARCHAR(40) NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    updated_at VARCHAR(40) NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);

-- `key` would have to be quoted in MySQL wherever somebody writes it, hence the longer name. NULL is "no bound".
CREATE TABLE app_keys (
    app_key VARCHAR(200) NOT NULL PRIMARY KEY,
    app_id VARCHAR(200) NOT NULL,
    secret VARCHAR(500) NOT NULL,
    active_from VARCHAR(40),
    expires_at VARCHAR(40),
    created_at VARCHAR(40) NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE CASCADE
);

CREATE INDEX app_keys_of_app ON app_keys (app_id);
