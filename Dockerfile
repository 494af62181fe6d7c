# Images of the steps: docker build --target data|train|monitor -t arl-TARGET:0.2.0 .   All of them: make images
#
# The build installs everything from the lock and checks the hashes. A running step installs nothing, needs no root and
# writes only to its volumes and /tmp, so its root may be read-only. An index or certificates of your own are secrets of
# the build, which stay in no layer: --secret id=pip,src=pip.conf --secret id=ca,src=CA.pem, where pip.conf says
# `cert = /run/secrets/ca`. BASE is any Debian-like image with Python 3.11 and its venv module.
ARG BASE=python:3.11-slim-bookworm

# Each image's part of the lock, in a stage of its own: a layer below is built anew only when its part has changed.
FROM ${BASE} AS lock
WORKDIR /lock
COPY requirements.lock pyproject.toml ./
COPY bin/lock-for bin/
RUN bin/lock-for --only setuptools packaging > build \
    && bin/lock-for orchestrate > common \
    && bin/lock-for data orchestrate > data \
    && bin/lock-for train release orchestrate > train \
    && bin/lock-for monitor train release orchestrate > monitor

FROM ${BASE} AS environment
RUN useradd --uid 1000 --no-create-home arl && python3 -m venv /opt/arl
ENV PATH=/opt/arl/bin:$PATH HOME=/tmp USER=arl PYTHONUNBUFFERED=1 MPLBACKEND=Agg \
    DO_NOT_TRACK=true DVC_NO_ANALYTICS=1 GX_ANALYTICS_ENABLED=false ORT_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1 \
    PIP_CONFIG_FILE=/run/secrets/pip PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /arl
COPY --from=lock /lock/build /lock/common /lock/
# what builds the few packages that come as sources is from the lock as well
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca --mount=type=cache,target=/tmp/.cache/pip \
    pip install --quiet --no-deps --require-hashes -r /lock/build \
    && pip install --quiet --no-deps --no-build-isolation --require-hashes -r /lock/common

# The package itself, the default parameters of conf/, on which `arl run` builds, and the version of the code.
FROM environment AS project
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY conf conf
COPY components components
COPY pipelines pipelines
RUN pip install --quiet --no-deps --no-build-isolation --no-index --prefix /project . \
    && PYTHONPATH=src python -m arl.cli configure \
    && mkdir /project/arl \
    && PYTHONPATH=. python -c "from components.version import code_version; print(code_version())" \
        > /project/arl/code-version \
    && mv params.yaml conf components pipelines /project/arl

FROM environment AS data-environment
COPY --from=lock /lock/data /lock/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca --mount=type=cache,target=/tmp/.cache/pip \
    pip install --quiet --no-deps --no-build-isolation --require-hashes -r /lock/data

FROM environment AS train-environment
COPY --from=lock /lock/train /lock/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca --mount=type=cache,target=/tmp/.cache/pip \
    pip install --quiet --no-deps --no-build-isolation --require-hashes -r /lock/train

# on top of train's layer, so that a node that has one image fetches little for the other
FROM train-environment AS monitor-environment
COPY --from=lock /lock/monitor /lock/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca --mount=type=cache,target=/tmp/.cache/pip \
    pip install --quiet --no-deps --no-build-isolation --require-hashes -r /lock/monitor

FROM data-environment AS data
COPY --from=project /project/arl /arl
COPY --from=project /project /opt/arl
USER 1000:1000
CMD ["arl", "--help"]

FROM train-environment AS train
COPY --from=project /project/arl /arl
COPY --from=project /project /opt/arl
USER 1000:1000
CMD ["arl", "--help"]

FROM monitor-environment AS monitor
COPY --from=project /project/arl /arl
COPY --from=project /project /opt/arl
USER 1000:1000
CMD ["arl", "--help"]
