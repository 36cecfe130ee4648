-- What each app used on each day, UTC, as in 2026-01-31. Kept when the app is deleted.
CREATE TABLE app_usage (
    app_id VARCHAR(200) NOT NULL,
    day VARCHAR(10) NOT NULL,
    messages BIGINT NOT NULL DEFAULT 0,
    delivered BIGINT NOT NULL DEFAULT 0,
    bytes_sent BIGINT NOT NULL DEFAULT 0,
    bytes_received BIGINT NOT NULL DEFAULT 0,
    connections_peak BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (app_id, day)
);

-- The last batch that each process added above, so that one which is sent again does not count again.
CREATE TABLE app_usage_batches (
    writer VARCHAR(64) NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (writer, number)
);
