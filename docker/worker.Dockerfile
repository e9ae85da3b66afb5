# A worker. torch's Linux wheel brings CUDA along; it runs on CPUs too. Build from the repository root.
FROM python:3.12.13-slim-trixie AS build
WORKDIR /build
COPY docker/requirements/worker.txt ./
# The heavy layer first: it stays when only our code changes.
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r worker.txt
COPY pyproject.toml README.md LICENSE ./
COPY ripple_core ripple_core
COPY server server
COPY worker worker
COPY openapi openapi
RUN /venv/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12.13-slim-trixie
# Triton compiles a small launcher in C for each kernel; torch.compile makes C++ of what stays on the CPU.
RUN apt-get update && apt-get install -y --no-install-recommends g++ gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 1000 --create-home ripple && install -d -o ripple -g ripple /data /models /cache
COPY --from=build /venv /venv
USER 1000:1000
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 RIPPLE_DATA_DIR=/data HF_HOME=/models \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Whatever compiles or remembers something, as the home may be read-only.
ENV XDG_CACHE_HOME=/cache TRITON_CACHE_DIR=/cache/triton TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    CUDA_CACHE_PATH=/cache/nv
WORKDIR /data
VOLUME /data /models /cache
EXPOSE 9100
CMD ["python", "-m", "worker"]
