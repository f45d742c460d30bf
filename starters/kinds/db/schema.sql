-- Generated from the contract by `make dag`; do not edit.

CREATE TABLE IF NOT EXISTS records (
    row_1 Int64,
    row_2 Int64,
    row_3 Int64,
    row_4 Int64,
    row_5 Int64,
    row_6 Int64,
    row_7 Int64,
    row_8 Int64,
    column_1 Int64,
    column_2 Int64,
    column_3 Int64,
    column_4 Int64,
    column_5 Int64,
    column_6 Int64,
    column_7 Int64,
    column_8 Int64,
    sample Int64,
    digit Nullable(String)
) ENGINE = MergeTree
ORDER BY (sample)
SETTINGS non_replicated_deduplication_window = 100;

CREATE TABLE IF NOT EXISTS predictions (
    prediction_id String,
    request_id String,
    predicted_at DateTime64(6, 'UTC'),
    model_version String,
    lookups_until DateTime64(6, 'UTC'),
    lookups_hash String,
    idempotency_key String,
    idempotency_answer String,
    row_1 Int64,
    row_2 Int64,
    row_3 Int64,
    row_4 Int64,
    row_5 Int64,
    row_6 Int64,
    row_7 Int64,
    row_8 Int64,
    column_1 Int64,
    column_2 Int64,
    column_3 Int64,
    column_4 Int64,
    column_5 Int64,
    column_6 Int64,
    column_7 Int64,
    column_8 Int64,
    digit String,
    p_0 Float64,
    p_1 Float64,
    p_2 Float64,
    p_3 Float64,
    p_4 Float64,
    p_5 Float64,
    p_6 Float64,
    p_7 Float64,
    p_8 Float64,
    p_9 Float64,
    features Array(Float32),
    INDEX by_id prediction_id TYPE bloom_filter(0.001) GRANULARITY 4,
    INDEX by_key idempotency_key TYPE bloom_filter(0.001) GRANULARITY 4
) ENGINE = MergeTree
PARTITION BY toYYYYMM(predicted_at)
ORDER BY (predicted_at, prediction_id)
TTL toDateTime(predicted_at) + toIntervalDay(365)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS feedback (
    prediction_id String,
    outcome String,
    received_at DateTime64(6, 'UTC'),
    request_id String,
    idempotency_key String,
    idempotency_answer String,
    INDEX by_id prediction_id TYPE bloom_filter(0.001) GRANULARITY 4,
    INDEX by_key idempotency_key TYPE bloom_filter(0.001) GRANULARITY 4
) ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (prediction_id, received_at)
TTL toDateTime(received_at) + toIntervalDay(365)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS promotions (
    at DateTime64(6, 'UTC'),
    model String,
    kind String,
    from_version String,
    to_version String,
    who String,
    verdict String,
    reason String,
    previous_hash String,
    hash String
) ENGINE = MergeTree
ORDER BY (model, at)
SETTINGS non_replicated_deduplication_window = 100;

CREATE TABLE IF NOT EXISTS lookups (
    hash String,
    kept_at DateTime64(6, 'UTC'),
    content String
) ENGINE = MergeTree
ORDER BY (hash, kept_at)
TTL toDateTime(kept_at) + toIntervalDay(731)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS shadows (
    prediction_id String,
    model_version String,
    answered_at DateTime64(6, 'UTC'),
    scores Array(Float64),
    micros Float64
) ENGINE = MergeTree
PARTITION BY toYYYYMM(answered_at)
ORDER BY (model_version, prediction_id)
TTL toDateTime(answered_at) + toIntervalDay(365)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS logs (
    at DateTime64(3, 'UTC'),
    level String,
    service String,
    logger String,
    message String,
    request_id String,
    run_id String,
    model_version String,
    line String
) ENGINE = MergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (service, at)
TTL toDateTime(at) + toIntervalDay(30)
SETTINGS non_replicated_deduplication_window = 100;
