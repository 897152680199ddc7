# One image for JupyterLab, the radar, the jobs and the migrations; docker-compose.yaml says which of them a container
# is, and how it is asked whether it is well.

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

FROM base
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
RUN mkdir -p runs notebooks/runs notebooks/research && chown -R studio:studio runs notebooks/runs notebooks/research
USER 10001:10001
CMD ["chartinsight", "--help"]
