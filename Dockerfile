# Three images: `serve` (the default: the prediction service), `pipeline` (stages, registry, MLflow's server), and `airflow` (that, and an Airflow beside it).
#   docker build -t og-project .                docker build --target pipeline -t og-project-pipeline .
ARG PYTHON=3.11-slim

FROM python:${PYTHON} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/venv/bin:$PATH OG_ROOT=/app PYTHONPATH=/app \
    PLOOMBER_STATS_ENABLED=false MLFLOW_DISABLE_TELEMETRY=true DVC_NO_ANALYTICS=true GIT_PYTHON_REFRESH=quiet
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin og \
    && mkdir -p /app/journal /app/models /app/data /app/reports && chown -R og:og /app
WORKDIR /app

# The locked, hashed requirements, apart from the code: a change of code leaves these layers as they are. Byte code of what takes longest to import
# makes the service ready in half the time, for 24 MB; all of it would be 80.
FROM base AS build
COPY requirements-dev.txt /tmp/
RUN python -m venv /tmp/uv && /tmp/uv/bin/pip install -q --no-cache-dir "$(grep -o '^uv==[0-9.]*' /tmp/requirements-dev.txt)" && python -m venv --without-pip /venv
COPY requirements-serve.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/uv VIRTUAL_ENV=/venv UV_LINK_MODE=copy /tmp/uv/bin/uv pip sync -q --require-hashes /tmp/requirements-serve.txt \
    && find /venv -type d -name tests -prune -exec rm -rf {} + && rm -rf /venv/lib/python*/site-packages/pyarrow/include \
    && for name in clickhouse_connect fastapi holidays lightgbm mlflow.tracking prometheus_client pyarrow.compute pydantic_settings tenacity uvicorn; do \
       env -u PYTHONDONTWRITEBYTECODE /venv/bin/python -c "import $name" || echo "no byte code of $name: not in requirements-serve.txt"; done \
    && printf '#!/venv/bin/python\nfrom og_project.cli import og\nog()\n' >/venv/bin/og && chmod 755 /venv/bin/og

# All byte code is in the two images whose every command is a process of its own: it halves their start, and is a fifth of their size
FROM build AS build-pipeline
COPY requirements-pipeline.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/uv VIRTUAL_ENV=/venv UV_LINK_MODE=copy /tmp/uv/bin/uv pip sync -q --compile-bytecode --require-hashes /tmp/requirements-pipeline.txt \
    && printf '[console_scripts]\nog = og_project.cli:og\n[papermill.engine]\npapermill = og_project.lifecycle.pipeline:RunEngine\n' >/tmp/entry_points.txt \
    && folder="$(/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/og_project-0.dist-info" && mkdir "$folder" \
    && printf 'Metadata-Version: 2.1\nName: og_project\nVersion: 0\n' >"$folder/METADATA" && mv /tmp/entry_points.txt "$folder/"

FROM base AS pipeline
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends git && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=build-pipeline /venv /venv
COPY --chown=og:og . /app
ARG COMMIT=unknown
ARG VERSION=0
LABEL org.opencontainers.image.revision=$COMMIT org.opencontainers.image.version=$VERSION org.opencontainers.image.title="og-project pipeline"
ENV GIT_COMMIT=$COMMIT
USER 10001
ENTRYPOINT ["og"]
CMD ["--help"]

# Airflow has an environment of its own, /airflow/venv, with nothing of the project in it; its tasks call the project's `og`
FROM build AS build-airflow
COPY requirements-airflow.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/uv python -m venv --without-pip /airflow/venv \
    && VIRTUAL_ENV=/airflow/venv UV_LINK_MODE=copy /tmp/uv/bin/uv pip sync -q --compile-bytecode --require-hashes /tmp/requirements-airflow.txt

FROM pipeline AS airflow
COPY --from=build-airflow /airflow/venv /airflow/venv
USER 0
# what a task's `og` says of itself goes into the task's log, and into the container's, where logs are collected
RUN mkdir -p /airflow/home /airflow/dags && ln -s /app/dag.py /airflow/dags/dag.py && chown -R og:og /airflow/home \
    && printf '#!/bin/bash\nexport PYTHONPATH=/app PATH=/venv/bin:/usr/bin:/bin\nog "$@" 2> >(tee /proc/1/fd/2 >&2)\n' >/airflow/og && chmod 755 /airflow/og
USER 10001
ENV AIRFLOW_HOME=/airflow/home AIRFLOW__CORE__DAGS_FOLDER=/airflow/dags AIRFLOW__CORE__LOAD_EXAMPLES=false PROJECT_DIR=/app PROJECT_OG=/airflow/og \
    AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:8080/execution/ AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=admin:admin \
    AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL=60 AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=false AIRFLOW__API__WORKERS=1
ENTRYPOINT ["sh", "-c", "umask 077; printf '{\"admin\": \"%s\"}' \"$AIRFLOW_PASSWORD\" >/tmp/passwords.json; export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=/tmp/passwords.json PATH=/airflow/venv/bin:$PATH PYTHONPATH=; exec /airflow/venv/bin/airflow standalone"]
CMD []

FROM base AS serve
COPY --from=build /venv /venv
COPY settings.ini requirements.txt app.py pipeline.yaml env.yaml /app/
COPY config /app/config
COPY page /app/page
COPY og_project /app/og_project
ARG COMMIT=unknown
ARG VERSION=0
LABEL org.opencontainers.image.revision=$COMMIT org.opencontainers.image.version=$VERSION org.opencontainers.image.title="og-project service"
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=30s --start-period=120s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET /health/ready HTTP/1.0\\r\\n\\r\\n' >&3; read -r _ code _ <&3; [ \"$code\" = 200 ]"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["og"]
CMD ["serve"]
