# The API: small, without torch. Build from the repository root.
FROM python:3.12-slim

RUN useradd --uid 1000 --create-home ripple && install -d -o ripple -g ripple /data
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY ripple_core ripple_core
COPY server server
COPY worker worker
COPY openapi openapi
RUN pip install --no-cache-dir ".[s3]"

USER ripple
ENV RIPPLE_HOST=0.0.0.0 RIPPLE_PORT=8000 RIPPLE_DATA_DIR=/data
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "server"]
