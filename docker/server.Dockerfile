# The API: small, without torch. Build from the repository root.
FROM python:3.12.8-slim-bookworm AS build
WORKDIR /build
COPY docker/requirements/server.txt ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r server.txt
COPY pyproject.toml README.md LICENSE ./
COPY ripple_core ripple_core
COPY server server
COPY worker worker
COPY openapi openapi
RUN /venv/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12.8-slim-bookworm
RUN useradd --uid 1000 --create-home ripple && install -d -o ripple -g ripple /data
COPY --from=build /venv /venv
USER ripple
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 RIPPLE_HOST=0.0.0.0 RIPPLE_PORT=8000 RIPPLE_DATA_DIR=/data
WORKDIR /data
VOLUME /data
EXPOSE 8000 9100
CMD ["python", "-m", "server"]
