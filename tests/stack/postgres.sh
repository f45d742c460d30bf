#!/usr/bin/env bash
# What the official image does with POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD
set -euo pipefail
data=/var/lib/postgresql/data; mkdir -p "$data"; chown -R postgres "$data"
as() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
if [ ! -f "$data/PG_VERSION" ]; then
  install -o postgres -m 600 <(echo "$POSTGRES_PASSWORD") /tmp/password
  as initdb -D "$data" -U "$POSTGRES_USER" --auth scram-sha-256 --pwfile /tmp/password >/dev/null; rm /tmp/password
  echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
  as pg_ctl -D "$data" -w -o "-k /tmp" start >/dev/null
  PGPASSWORD=$POSTGRES_PASSWORD createdb -h 127.0.0.1 -U "$POSTGRES_USER" "$POSTGRES_DB"
  as pg_ctl -D "$data" -w stop >/dev/null
fi
exec setpriv --reuid postgres --regid postgres --clear-groups postgres -D "$data" -c listen_addresses='*' -k /tmp
