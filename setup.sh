#!/usr/bin/env bash
# The whole service on this machine, from nothing to a prediction that is answered through the proxy and found in ClickHouse.
set -euo pipefail
CALLED_IN=$PWD; cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { cat <<'HELP'
./setup.sh [VERB]

  up           (default) check what is needed, make secrets, build, start, train the first model where there is none,
               ask for a prediction through the proxy and find it in ClickHouse. Safe to run again: what stands keeps its
               version; where nothing stands, it is the commit that is checked out, or TAG=...
  status       what runs, in which version, and where it is
  logs [NAME]  follow the logs of all services, or of one
  upgrade [TAG]  replace the replicas one by one by the images of TAG (default: the commit that is checked out); goes back
               by itself when the smoke test fails
  deploy TAG   upgrade where something runs, up where nothing does (for CI)
  rollback     the images that ran before the last upgrade (a model goes back by ./setup.sh og rollback)
  og VERB ...  an og command in the stack: ./setup.sh og history; ./setup.sh og run all -p until 2014-01-01
  sql QUERY    ask ClickHouse: ./setup.sh sql "SELECT at, service, message FROM logs ORDER BY at DESC LIMIT 20"
  signer [--only]  a new key to sign versions with: the champion and the ledger are signed, and from then on the service takes
               signed versions only. Again: another key signs, the ones before stay trusted; with --only they do not
  export FILE  all that this host has gathered, in one file: tables, versions of the model, ledger; no secrets
  import FILE  `up` on a host that has nothing yet, with what such a file holds in the place of a first model
  test         what has to hold of a stack that stands (test.py); JUnit report in reports/stack-junit.xml
  doctor       what is wrong, and what to do about it
  down         stop everything; data stays. `down --volumes` also removes all data
  -h, --help   this text

Values: config.env (committed), then .env (made here, mode 600). Other compose files: COMPOSE_FILE. Guide: docs/deploy.md
HELP
}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'setup.sh: %s\n' "$*" >&2; exit 1; }

# --- values ----------------------------------------------------------------------------------------
load_env() { # the environment wins, then .env, then config.env
  local file name value
  for file in .env config.env; do
    [ -f "$file" ] || continue
    while IFS='=' read -r name value; do
      if [[ $name =~ ^[A-Z0-9_]+$ && -z ${!name+set} ]]; then value=${value#[\'\"]}; export "$name=${value%[\'\"]}"; fi
    done < <(tac "$file") # of two lines for a name the last one holds
  done
  if [ -n "${CONTOUR:-}" ]; then echo "CONTOUR is called OG_ENV now: rename it in .env" >&2; OG_ENV=$CONTOUR; fi
  alert_routes; choose_servers; stamp
}
alert_routes() { # Alertmanager's file: without the webhook of Airflow where there is none, without a receiver where none is set
  ALERTMANAGER_YML=$(<monitoring/alertmanager.yml)
  [[ -n $AIRFLOW_URL || $COMPOSE_PROFILES == *airflow* ]] || ALERTMANAGER_YML=$(sed '/action="retrain"/,/continue: true/d' <<<"$ALERTMANAGER_YML")
  if [ -n "$ALERT_URL" ]; then ALERTMANAGER_YML=${ALERTMANAGER_YML//\$\{ALERT_URL\}/"$ALERT_URL"}; else ALERTMANAGER_YML=$(sed '/ALERT_URL/d' <<<"$ALERTMANAGER_YML"); fi
  export ALERTMANAGER_YML
}
choose_servers() { # the stack's own servers, but for those in whose place there are yours
  if [[ $STORE_HOST == clickhouse:* ]]; then SERVERS=(clickhouse); else SERVERS=(); ABSENT=(--scale clickhouse=0); fi
  if [[ $MLFLOW_URL == http://mlflow:* ]]; then SERVERS+=(postgres s3 mlflow); else ABSENT+=(--scale postgres=0 --scale s3=0 --scale mlflow=0); fi
}
stamp() { # a container whose files, or keys that it reads as files, have changed is replaced
  PROXY_FILES=$({ cat monitoring/haproxy.cfg secrets/tls.pem 2>/dev/null || true; } | sha256sum | cut -c1-12)
  WATCH_FILES=$({ echo "$ALERTMANAGER_YML ${TRIGGER_KEY:-} ${METRICS_KEY:-}"
    find monitoring -type f -name '*.[ycj]*' -not -name 'haproxy.cfg' -not -name '*.py*' -print0 | sort -z | xargs -0 cat; } | sha256sum | cut -c1-12)
  STORAGE_KEYS=$(echo "${S3_ADMIN_SECRET:-} ${S3_MLFLOW_SECRET:-} ${S3_DVC_SECRET:-}" | sha256sum | cut -c1-12)
  export PROXY_FILES WATCH_FILES STORAGE_KEYS
}
save_value() { # NAME VALUE: write a value into .env in the place of the one before
  local rest; rest=$(grep -v "^$1=" .env || true)
  (umask 077; printf "%s\n%s='%s'\n" "$rest" "$1" "$2" | sed '/^$/d' >.env.new)
  mv .env.new .env; export "$1=$2"
}
saved_value() { cat config.env .env | sed -n "s/^$1=['\"]\?\([^'\"]*\).*/\1/p" | tail -n 1; } # NAME: its value there, whatever the environment says
save_default() { [ -n "${!1:-}" ] || save_value "$1" "$2"; } # NAME VALUE: unless it has one
random() { openssl rand -hex 24; }

if docker compose version >/dev/null 2>&1; then COMPOSE=(docker compose); else COMPOSE=(docker-compose); fi
compose() { "${COMPOSE[@]}" "$@"; }
job() { compose run --rm --no-deps -T "$@" </dev/null; }
image() { docker image inspect "$1" >/dev/null 2>&1; }
REPLICAS=(api-1 api-2)
SERVERS=() ABSENT=() # set by choose_servers
standing() { TAG=${TAG:-none} compose ps -aq "${REPLICAS[@]}" 2>/dev/null || true; }
commit() { git rev-parse --short HEAD 2>/dev/null || echo "${TAG:-unknown}"; }

checked_out() { # TAG: is it the commit that is checked out, at whatever length
  local of; [ "$1" = "$(commit)" ] || { of=$(git rev-parse -q --verify "$1^{commit}" 2>/dev/null) && [ "$of" = "$(git rev-parse HEAD)" ]; }
}

# --- steps -----------------------------------------------------------------------------------------
check_requirements() {
  local missing=()
  for tool in docker openssl curl; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  [ ${#missing[@]} = 0 ] || fail "missing: ${missing[*]}. Install them with your system's package manager."
  docker info >/dev/null 2>&1 || fail "no Docker engine answers: start it, or set DOCKER_HOST, or join the group docker."
  local has; has=$(compose version --short 2>/dev/null | tr -d v || true)
  [ "$(printf '%s\n' 2.24 "$has" | sort -V | head -n 1)" = 2.24 ] || fail "Docker Compose 2.24 or newer is needed (the plugin, or docker-compose on the PATH); here is ${has:-none}."
  DOCKER_BUILDKIT=1 docker build --help >/dev/null 2>&1 || fail "Docker cannot build images with BuildKit: its plugin buildx is missing (on Debian the package docker-buildx)."
  local place=$DOCKER_DATA free; [ -d "$place" ] || place=.
  free=$(df -Pk "$place" | awk 'NR == 2 {print int($4 / 1048576)}')
  [ "$free" -ge 10 ] || if [ -n "$(standing)" ]; then echo "only $free GB free in $place: docs/runbook.md#diskfull" >&2
    else fail "only $free GB free in $place; images and data need 10."; fi
}

build() { # TAG
  local version made_of; version=$(sed -n 's/^version = //p' settings.ini)
  made_of=$(git describe --always --abbrev=40 --dirty --exclude='*' 2>/dev/null || echo "$1")
  for target in serve pipeline $([[ ${COMPOSE_PROFILES:-} != *airflow* ]] || echo airflow); do
    local name=$IMAGE; [ "$target" = serve ] || name=$IMAGE-$target
    image "$name:$1" && continue
    docker pull -q "$name:$1" >/dev/null 2>&1 && continue
    checked_out "$1" || fail "there is no image $name:$1, and only the commit that is checked out ($(commit)) can be built: check out $1"
    echo "building $name:$1"
    DOCKER_BUILDKIT=1 docker build -q --target "$target" -t "$name:$1" --build-arg "COMMIT=$made_of" --build-arg "VERSION=$version" . >/dev/null
  done
}

og_key() { docker run --rm --log-driver none "$IMAGE:$TAG" key "$@"; } # what it shows is in no log
api_key() { # NAME SCOPE...: makes a key; KEY and ENTRY
  local made scopes=(); for scope in "${@:2}"; do scopes+=(--scope "$scope"); done
  made=$(og_key "$1" "${scopes[@]}")
  KEY=$(awk '/^key/ {print $2}' <<<"$made"); ENTRY=$(sed -n 's/^entry  \(.*[0-9a-f]\{64\}\).*/\1/p' <<<"$made")
}

secrets() {
  touch .env; chmod 600 .env; mkdir -p secrets; chmod 700 secrets
  for name in ADMIN_PASSWORD SERVICE_PASSWORD PIPELINE_PASSWORD MONITOR_PASSWORD LOGS_PASSWORD POSTGRES_PASSWORD S3_ADMIN_SECRET S3_MLFLOW_SECRET \
    S3_DVC_SECRET GRAFANA_PASSWORD AIRFLOW_PASSWORD AIRFLOW_SECRET JOURNAL_HASH_KEY TRIGGER_KEY ELASTIC_PASSWORD KIBANA_PASSWORD; do save_default $name "$(random)"; done
  save_default OWNER "$(id -u):$(id -g)"
  if [ -z "${SERVICE_KEYS:-}" ]; then
    api_key setup predict feedback metrics; save_value SERVICE_KEY "$KEY"; local entries=$ENTRY
    api_key prometheus metrics; save_value METRICS_KEY "$KEY"; save_value SERVICE_KEYS "$entries;$ENTRY"
  fi
  [ -f secrets/tls.pem ] || certificate
  stamp
}

certificate() { # an authority of this installation, and a certificate of it for HOSTS; replace both by your own
  local names="DNS:$PROXY_NAME,DNS:localhost,IP:127.0.0.1"
  for host in $HOSTS; do if [[ $host =~ ^[0-9.:]+$ ]]; then names+=",IP:$host"; else names+=",DNS:$host"; fi; done
  (umask 077; cd secrets
   # the authority stays if its key is here, and it is valid for the time of the certificate
   { openssl x509 -checkend 71280000 -noout -in ca.pem && openssl x509 -pubkey -noout -in ca.pem | cmp -s - <(openssl pkey -pubout -in ca.key); } >/dev/null 2>&1 ||
   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1825 -subj "/CN=$PROJECT authority" -keyout ca.key -out ca.pem 2>/dev/null
   openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$PROJECT" -keyout tls.key -out tls.csr 2>/dev/null
   openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -extfile <(echo "subjectAltName=$names") -out tls.crt 2>/dev/null
   cat tls.crt ca.pem tls.key >tls.pem; rm -f tls.key tls.csr tls.crt ca.srl)
  chmod 644 secrets/ca.pem
}

trust() { # IMAGE:TAG: what our containers trust: the authorities of the image, the proxy's, and those of your own servers; and who signs versions
  touch secrets/signer secrets/signers.pem; chmod 644 secrets/signer secrets/signers.pem # read in containers; on this host only its owner gets into the folder
  (umask 022; { docker run --rm --entrypoint cat "$1" /etc/ssl/certs/ca-certificates.crt; cat secrets/ca.pem; cat secrets/own-ca.pem 2>/dev/null || true; } >secrets/trust.new)
  cmp -s secrets/trust.new secrets/trust.pem || cat secrets/trust.new >secrets/trust.pem; rm secrets/trust.new; chmod 644 secrets/trust.pem
}

champion() { # its version, or nothing
  local login=${MLFLOW_TRACKING_USERNAME:+"user = \"$MLFLOW_TRACKING_USERNAME:${MLFLOW_TRACKING_PASSWORD:-}\""}
  curl -sf -K - --cacert secrets/trust.pem <<<"$login" \
    "${MLFLOW_URL/http:\/\/mlflow:5000/http://127.0.0.1:$MLFLOW_PORT}/api/2.0/mlflow/registered-models/alias?name=$MODEL&alias=champion" | sed -n 's/.*"version": *"\([0-9]*\)".*/\1/p'
}

first_model() {
  [ -z "$(champion)" ] || return 0
  [ "$OG_ENV" = test ] || fail "there is no champion yet. Fill your tables, then: ./setup.sh og run all; ./setup.sh og register --promote-first; ./setup.sh"
  say "No champion yet: the example's data, and a first model (two minutes)"
  job admin load package
  job pipeline run all ${FIRST_UNTIL:+-p until "$FIRST_UNTIL"}
  job pipeline register --promote-first
}

named_file() { if [[ $1 == /* ]]; then echo "$1"; else echo "$CALLED_IN/$1"; fi; } # FILE: from wherever this was called
with_admin() { # VERB: og export or og import through a pipe; what it needs of space is on the volume, and keys go along to be compared
  OG_JOURNAL__HASH_KEY=$JOURNAL_HASH_KEY OG_SERVE__KEYS=$SERVICE_KEYS TMPDIR=/app/data \
    compose run --rm --no-deps -T -e OG_JOURNAL__HASH_KEY -e OG_SERVE__KEYS -e TMPDIR admin "$1" -
}
export_all() { # FILE
  local to; to=$(named_file "$1"); load_env
  [ -n "$(standing)" ] || fail "nothing runs: ./setup.sh"
  (umask 077; with_admin export </dev/null >"$to.new") || { rm -f "$to.new"; fail "nothing was exported"; }
  mv "$to.new" "$to"; ls -lh "$to"
}

buckets() { printf 's3.bucket.create -name %s\n' mlflow dvc | compose exec -T s3 weed shell -master=s3:9333 >/dev/null 2>&1 || true; }

seen_by_proxy() { # REPLICA [TRIES]
  for _ in $(seq "${2:-60}"); do
    curl -sf "http://127.0.0.1:$PROXY_STATS_PORT/metrics" | grep "^haproxy_server_status{proxy=\"api\",server=\"$1\",state=\"UP\"} 1" >/dev/null && return 0
    sleep 0.5
  done
  echo "$1 is healthy, but the proxy does not see it" >&2; return 1
}
each_replica() { for replica in "${REPLICAS[@]}"; do "$1" "$replica" || return 1; done; }
renew() { # REPLICA: as .env and the compose file want it; it is left alone if it is so already
  compose up -d --no-deps --wait --wait-timeout "${WAIT_SECONDS:-120}" "$1" || return 1
  [ -z "$(compose ps -q --status running proxy 2>/dev/null || true)" ] || new_to_proxy "$1" || seen_by_proxy "$1"
}
new_to_proxy() { # REPLICA: added to haproxy.cfg after the proxy that runs was started
  local servers; servers=$(curl -sf "http://127.0.0.1:$PROXY_STATS_PORT/metrics") && ! grep -q "server=\"$1\"" <<<"$servers"
}
seen_now() { seen_by_proxy "$1" 1; }
smoke() { job pipeline smoke --url "https://$PROXY_NAME:8443" "$@"; } # named, for images that do not know SERVICE_URL yet

up() {
  local given=${TAG:-}; touch .env; load_env; check_requirements
  [ -n "$given" ] || [ -n "$(standing)" ] || TAG=$(commit) # where nothing stands, an `up` that failed may have left another
  say "Images $IMAGE:${TAG:=$(commit)}"; build "$TAG"
  [ "$(saved_value TAG)" = "$TAG" ] || save_value TAG "$TAG"
  [ "$(saved_value IMAGE)" = "$IMAGE" ] || save_value IMAGE "$IMAGE"
  secrets; trust "$IMAGE:$TAG"
  compose config -q
  docker run --rm -e "OG_ENV=$OG_ENV" --entrypoint python "$IMAGE:$TAG" -c 'from og_project.config import settings; settings()'
  say "Servers: ${SERVERS[*]:-yours}"
  [ ${#SERVERS[@]} = 0 ] || compose up -d --wait --wait-timeout 300 "${ABSENT[@]}" "${SERVERS[@]}"
  [[ ${SERVERS[*]} != *s3* ]] || buckets
  job admin tables --users
  if [ -z "${IMPORT:-}" ]; then first_model; else say "What $IMPORT holds"; with_admin import <"$IMPORT"; fi
  say "Everything else"
  each_replica renew
  compose up -d --wait --wait-timeout 600 --remove-orphans "${ABSENT[@]}"
  each_replica seen_by_proxy
  say "One real prediction"
  smoke
  status
}

status() {
  load_env
  compose ps --format 'table {{.Service}}\t{{.Image}}\t{{.Status}}'
  cat <<TEXT

  the service     https://localhost:$PORT           (curl --cacert secrets/ca.pem -H "Authorization: Bearer \$SERVICE_KEY"; the key is in .env)
  Grafana         http://127.0.0.1:$GRAFANA_PORT        (admin, GRAFANA_PASSWORD of .env)
  Prometheus      http://127.0.0.1:$PROMETHEUS_PORT        Alertmanager  http://127.0.0.1:$ALERTMANAGER_PORT
  MLflow          http://127.0.0.1:$MLFLOW_PORT        champion: version $(champion || true)
  images          ${TAG:-none}${PREVIOUS_TAG:+, before: $PREVIOUS_TAG}
TEXT
}

replace() { # IMAGE TAG: each replica in turn, the next one only when this one answers
  export IMAGE=$1 TAG=$2
  for replica in "${REPLICAS[@]}"; do
    echo "$replica: $IMAGE:$TAG"
    if ! { renew "$replica" && job pipeline smoke --url "http://$replica:8080"; }; then compose logs --no-log-prefix --tail 20 "$replica" >&2; return 1; fi
  done
  smoke --watch "${WATCH_SECONDS:-10}"
}

upgrade() { # [TAG]
  load_env; check_requirements
  local new=${1:-$(commit)} old=${TAG:?nothing runs yet: ./setup.sh} of=$IMAGE was; was=$(saved_value IMAGE) # CI may name another IMAGE than the one that runs
  [ -n "$(standing)" ] || fail "nothing runs: ./setup.sh"
  [ "$of:$new" != "$was:$old" ] || fail "$new runs already; check out another commit, or name a tag"
  build "$new"; trust "$was:$old"
  say "From $was:$old to $of:$new"
  TAG=$new job admin tables --users || fail "the tables cannot be made ready for $new; nothing was replaced"
  if replace "$of" "$new"; then
    save_value IMAGE "$of"; save_value TAG "$new"; save_value PREVIOUS_IMAGE "$was"; save_value PREVIOUS_TAG "$old"
    compose up -d --wait "${ABSENT[@]}"
    say "$new serves; back: ./setup.sh rollback"
  else
    say "$new fails; going back to $old"
    replace "$was" "$old" || fail "and $old does not answer either: ./setup.sh doctor"
    fail "$new was not taken; $old serves. The logs of the replicas above say why."
  fi
}

rollback() {
  load_env; [ -n "${PREVIOUS_TAG:-}" ] || fail "there was no upgrade yet"
  export IMAGE=${PREVIOUS_IMAGE:-$IMAGE}; upgrade "$PREVIOUS_TAG"
}

signer() { # [--only]
  load_env; check_requirements; local now; now=$(champion); [ -n "$now" ] || fail "there is no champion to sign: ./setup.sh"
  touch settings.env
  (umask 077; cd secrets; cat signer >signer.old; cat signers.pem >signers.old; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out signer.new 2>/dev/null
   { [ "${1:-}" = --only ] || cat signers.pem; openssl pkey -in signer.new -pubout; } >signers.new
   cat signers.new >signers.pem; cat signer.new >signer; rm signer.new signers.new) # in place: containers hold the files
  [ "${SIGNER_KEY:-}" = /run/signer ] || save_value SIGNER_KEY /run/signer
  job pipeline attest "$now" || {
    cat secrets/signer.old >secrets/signer; cat secrets/signers.old >secrets/signers.pem; rm secrets/signer.old secrets/signers.old
    fail "version $now was not signed; the keys are those of before"
  }
  rm secrets/signer.old secrets/signers.old
  grep -q '^OG_SERVE__SIGNERS=' settings.env || echo OG_SERVE__SIGNERS=/run/signers.pem >>settings.env
  each_replica renew
  compose up -d --wait --wait-timeout 600 "${ABSENT[@]}"
  smoke
  say "Versions are signed with secrets/signer; $(grep -c BEGIN secrets/signers.pem) trusted: secrets/signers.pem"
}

doctor() {
  load_env; check_requirements; local bad=0 anew="put the new one into secrets/tls.pem; ./setup.sh"
  ! openssl x509 -issuer -noout -in secrets/tls.pem 2>/dev/null | grep -q "$PROJECT authority" || anew="rm secrets/tls.pem; ./setup.sh"
  check() { # WHAT, WHAT TO DO, COMMAND...
    if "${@:3}" >/dev/null 2>&1; then printf '  ok    %s\n' "$1"; else printf '  BAD   %s\n        %s\n' "$1" "$2"; bad=1; fi
  }
  none() { [ -z "$("$@")" ]; }
  check ".env is there, for its owner only" "./setup.sh makes it; chmod 600 .env" test "$(stat -c %a .env 2>/dev/null)" = 600
  check "compose files are valid" "docker compose config -q says what is not" compose config -q
  check "the certificate is valid for 30 days" "$anew" openssl x509 -checkend 2592000 -noout -in secrets/tls.pem
  check "every container runs and is healthy" "./setup.sh status, ./setup.sh logs NAME" none compose ps --all --status exited --status dead --status restarting -q
  check "every replica gets traffic" "./setup.sh logs api-1; docs/runbook.md#replicadown" each_replica seen_now
  check "there is a champion" "./setup.sh og register --promote-first" test -n "$(champion)"
  check "the proxy answers with its certificate" "./setup.sh logs proxy" curl -sf --cacert secrets/ca.pem --connect-to "$PROXY_NAME:$PORT:127.0.0.1:$PORT" "https://$PROXY_NAME:$PORT/health/ready"
  local firing; firing=$(curl -s "http://127.0.0.1:$ALERTMANAGER_PORT/api/v2/alerts?active=true" | grep -o '"alertname":"[^"]*"' | sort -u | cut -d'"' -f4 | xargs || true)
  check "no alert fires" "${firing:-Alertmanager does not answer}: docs/runbook.md, http://127.0.0.1:$ALERTMANAGER_PORT" bash -c "curl -sf http://127.0.0.1:$ALERTMANAGER_PORT/api/v2/alerts?active=true | grep -q '^\[\]'"
  [ -n "$ALERT_URL" ] || echo "  note  alerts are only shown: ALERT_URL names nobody who is told"
  check "a prediction is answered and recorded" "./setup.sh og smoke says what is missing" smoke
  return $bad
}

deploy() { # TAG
  touch .env; load_env
  if [ -n "$(standing)" ] && [ "$IMAGE:$1" != "$(saved_value IMAGE):${TAG:-}" ]; then upgrade "$1"; else export TAG=$1; up; fi
}

acceptance() {
  load_env; check_requirements; mkdir -p reports
  local files=() file status=0 name="$PROJECT-acceptance"
  for file in $(tr : ' ' <<<"${COMPOSE_FILE:-docker-compose.yml}") docker-compose-test.yml; do files+=(-f "$file"); done
  docker rm -f "$name" >/dev/null 2>&1 || true
  compose "${files[@]}" run --no-deps -T --name "$name" test </dev/null || status=$?
  docker cp "$name:/app/reports/junit.xml" reports/stack-junit.xml >/dev/null || echo "it left no report" >&2; docker rm -f "$name" >/dev/null
  return $status
}

case "${1:-up}" in
  up) up ;;
  status) status ;;
  logs) load_env; compose logs -f --tail 100 "${@:2}" ;;
  upgrade) upgrade "${2:-}" ;;
  deploy) deploy "${2:?which tag?}" ;;
  rollback) rollback ;;
  og) load_env; if [ "${2:-}" = key ]; then og_key "${@:3}"; else compose run --rm --no-deps pipeline "${@:2}"; fi ;;
  sql) load_env; job --entrypoint python pipeline -c 'import sys; from og_project.config import settings; from og_project.store import query, store_of
print(query(store_of(settings()), sys.argv[1]).to_pandas().to_string())' "${2:?which query?}" ;;
  signer) signer "${2:-}" ;;
  export) export_all "${2:?into which file?}" ;;
  import) IMPORT=$(named_file "${2:?which file?}"); [ -r "$IMPORT" ] || fail "there is no file $IMPORT"; up ;;
  test) acceptance ;;
  doctor) doctor ;;
  down) load_env; compose --profile '*' down --remove-orphans "${@:2}" ;;
  -h | --help | help) usage ;;
  *) usage; exit 2 ;;
esac
