# Two images: `studio` for JupyterLab, the radar, the scheduler and the migrations; `airflow`, which is that one with Airflow beside
# it, in an environment of its own. docker-compose.yaml says what a container is, and how it is asked whether it is well.
#
#   docker build --target studio .

# The pin stands here once. Pinned by version; add the digest (`@sha256:…`) where the image can be pulled.
FROM python:3.12.12-slim-trixie AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app

FROM base AS build
RUN python -m venv /opt/venv
# The lock before the source: editing the source does not install the 690 MB of the stack again.
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY chartinsight_lib chartinsight_lib
# Editable, because the notebooks and pipelines are found beside the package, as in a checkout.
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .

# Airflow and the project do not share an environment: they need not agree on the version of anything. executors.lock instead
# (`--build-arg AIRFLOW_LOCK=executors.lock`) brings what Celery and Kubernetes need.
FROM base AS build-airflow
ARG AIRFLOW_LOCK=requirements.lock
RUN python -m venv /opt/airflow
COPY pipelines/airflow/requirements.lock pipelines/airflow/executors.lock ./
RUN /opt/airflow/bin/pip install --no-cache-dir --require-hashes --no-deps -r "$AIRFLOW_LOCK"

FROM base AS studio
LABEL org.opencontainers.image.title="ChartInsight Studio" \
      org.opencontainers.image.description="A notebook platform for stock market research, the Korean market first" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="python:3.12.12-slim-trixie"
# A fixed number, so that the volumes keep their owner from one image to the next.
RUN useradd --uid 10001 --user-group --create-home studio
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
COPY pipelines pipelines
COPY notebooks notebooks
# A new volume takes over the owner of the folder it is mounted on: these the user may write, all else is root's.
RUN mkdir -p runs backups notebooks/runs notebooks/research \
 && chown -R studio:studio runs backups notebooks/runs notebooks/research
USER 10001:10001
CMD ["chartinsight", "--help"]

FROM studio AS airflow
# `chartinsight` stays on PATH, after Airflow's own programs; the package is found in the checkout, for the calendar and the list.
ENV AIRFLOW_HOME=/app/airflow \
    PATH=/opt/airflow/bin:$PATH \
    PYTHONPATH=/app:/app/pipelines/airflow
USER 0:0
COPY --from=build-airflow /opt/airflow /opt/airflow
RUN mkdir -m 700 airflow && chown studio:studio airflow
USER 10001:10001
CMD ["airflow", "version"]
