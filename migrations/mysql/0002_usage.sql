-- What each app used on each day, UTC, as in 2026-01-31. Kept when the app is deleted.
CREATE TABLE app_usage (
    app_id VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    day VARCHAR(10) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    messages BIGINT NOT NULL DEFAULT 0,
    delivered BIGINT NOT NULL DEFAULT 0,
    bytes_sent BIGINT NOT NULL DEFAULT 0,
    bytes_received BIGINT NOT NULL DEFAULT 0,
    connections_peak BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (app_id, day)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The last batch that each process added above, so that one which is sent again does not count again.
CREATE TABLE app_usage_batches (
    writer VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (writer, number)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
