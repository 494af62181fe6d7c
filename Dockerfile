# Images of the pipeline's steps, by need: docker build --target data|train|monitor -t arl-TARGET:0.1.0 .
# Everything is installed here from the lock, checked against its hashes; a running step installs nothing, needs no
# root and writes only to its volumes and /tmp. The commit that is built fixes params.yaml too.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS wheels
WORKDIR /build
COPY requirements.lock .
# what builds the few packages that come as sources, from the lock as well
RUN awk '/^[a-z]/ {keep = /^(setuptools|wheel|packaging)==/} keep' requirements.lock > build.lock \
    && pip install --no-cache-dir --no-deps --require-hashes -r build.lock
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --require-hashes --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# /wheels holds one version of each package, so an extra can only resolve to what the lock says.
FROM wheels AS data-environment
RUN python -m venv /opt/arl && /opt/arl/bin/pip install --no-cache-dir --no-index --find-links /wheels "arl[data,orchestrate]"

FROM wheels AS train-environment
RUN python -m venv /opt/arl && /opt/arl/bin/pip install --no-cache-dir --no-index --find-links /wheels "arl[train,orchestrate]"

FROM wheels AS monitor-environment
RUN python -m venv /opt/arl && /opt/arl/bin/pip install --no-cache-dir --no-index --find-links /wheels "arl[train,monitor,orchestrate]"

FROM ${BASE} AS step
RUN useradd --uid 1000 --no-create-home arl
ENV PATH=/opt/arl/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 MPLBACKEND=Agg \
    DO_NOT_TRACK=true DVC_NO_ANALYTICS=1 GX_ANALYTICS_ENABLED=false HF_HUB_OFFLINE=1
WORKDIR /arl
COPY params.yaml .
COPY conf conf
USER 1000:1000
CMD ["arl", "--help"]

FROM step AS data
COPY --from=data-environment /opt/arl /opt/arl

FROM step AS train
COPY --from=train-environment /opt/arl /opt/arl

FROM step AS monitor
COPY --from=monitor-environment /opt/arl /opt/arl
