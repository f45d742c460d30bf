-- Generated from the contract by `make dag`; do not edit.

CREATE TABLE IF NOT EXISTS records (
    radius Float64,
    texture Nullable(Float64),
    perimeter Nullable(Float64),
    area Nullable(Float64),
    smoothness Nullable(Float64),
    compactness Nullable(Float64),
    concavity Nullable(Float64),
    concave_points Nullable(Float64),
    symmetry Nullable(Float64),
    fractal_dimension Nullable(Float64),
    sample Int64,
    malignant Nullable(Bool)
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
    radius Float64,
    texture Nullable(Float64),
    perimeter Nullable(Float64),
    area Nullable(Float64),
    smoothness Nullable(Float64),
    compactness Nullable(Float64),
    concavity Nullable(Float64),
    concave_points Nullable(Float64),
    symmetry Nullable(Float64),
    fractal_dimension Nullable(Float64),
    probability Float64,
    malignant Bool,
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
    outcome Bool,
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
