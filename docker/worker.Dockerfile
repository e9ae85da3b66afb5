# A worker. torch's Linux wheel brings CUDA along; it runs on CPUs too. Build from the repository root.
FROM python:3.12-slim

# Triton compiles a small launcher in C for each kernel.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

ARG TORCH="torch==2.13.0"
# The heavy layer first: it stays when only our code changes.
RUN pip install --no-cache-dir ${TORCH}

RUN useradd --uid 1000 --create-home ripple && install -d -o ripple -g ripple /data /models
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY ripple_core ripple_core
COPY server server
COPY worker worker
COPY openapi openapi
RUN pip install --no-cache-dir ".[worker,s3]"

USER ripple
ENV RIPPLE_DATA_DIR=/data HF_HOME=/models
VOLUME /data /models
CMD ["python", "-m", "worker"]
