-- Who may do what in ClickHouse; `og tables --users` runs it as a user who may grant. a name in braces is the hash of that variable.
-- Nobody here may alter, drop or delete; nobody but the pipeline may write down a promotion.

CREATE USER IF NOT EXISTS service IDENTIFIED WITH sha256_hash BY '{SERVICE_PASSWORD}';
ALTER USER service IDENTIFIED WITH sha256_hash BY '{SERVICE_PASSWORD}';
GRANT SELECT ON * TO service;
GRANT SELECT ON system.parts TO service;
GRANT SELECT ON system.clusters TO service;
GRANT INSERT ON predictions TO service;
GRANT INSERT ON feedback TO service;
GRANT INSERT ON lookups TO service;

CREATE USER IF NOT EXISTS pipeline IDENTIFIED WITH sha256_hash BY '{PIPELINE_PASSWORD}';
ALTER USER pipeline IDENTIFIED WITH sha256_hash BY '{PIPELINE_PASSWORD}';
GRANT SELECT ON * TO pipeline;
GRANT SELECT ON system.parts TO pipeline;
GRANT SELECT ON system.clusters TO pipeline;
GRANT INSERT ON promotions TO pipeline;
GRANT INSERT ON shadows TO pipeline;
GRANT CREATE TEMPORARY TABLE, CREATE ARBITRARY TEMPORARY TABLE ON *.* TO pipeline;

CREATE USER IF NOT EXISTS monitor IDENTIFIED WITH sha256_hash BY '{MONITOR_PASSWORD}';
ALTER USER monitor IDENTIFIED WITH sha256_hash BY '{MONITOR_PASSWORD}';
GRANT SELECT ON * TO monitor;
GRANT SELECT ON system.parts TO monitor;
GRANT SELECT ON system.clusters TO monitor;

CREATE USER IF NOT EXISTS logs IDENTIFIED WITH sha256_hash BY '{LOGS_PASSWORD}';
ALTER USER logs IDENTIFIED WITH sha256_hash BY '{LOGS_PASSWORD}';
GRANT INSERT ON logs TO logs;
