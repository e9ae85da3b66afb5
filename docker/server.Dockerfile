# The API: small, without torch. Build from the repository root.
FROM python:3.12.13-slim-trixie AS build
WORKDIR /build
COPY docker/requirements/server.txt ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r server.txt
COPY pyproject.toml README.md LICENSE ./
COPY ripple_core ripple_core
COPY server server
COPY worker worker
COPY openapi openapi
RUN /venv/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12.13-slim-trixie
# A volume takes the owner of the folder it first covers, whichever service comes first.
RUN useradd --uid 1000 --create-home ripple && install -d -o ripple -g ripple /data /models
COPY --from=build /venv /venv
USER 1000:1000
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 RIPPLE_HOST=0.0.0.0 RIPPLE_PORT=8000 RIPPLE_DATA_DIR=/data
WORKDIR /data
VOLUME /data /models
EXPOSE 8000 9100
CMD ["python", "-m", "server"]
