# One image for head, workers and jobs.
#
#   docker build --build-arg ACCELERATOR=cuda --tag objgan:cuda .
#   docker build --build-arg ACCELERATOR=cpu --build-arg CPU_INDEX=URL --tag objgan:cpu .
#   docker build --build-arg COMPILER=g++ --tag objgan:cuda .    # for compute.compile=true
#
# PyPI's torch for Linux is the one with CUDA (its libraries are wheels too: no CUDA base image is needed, only the
# driver of the machine). CPU_INDEX is the address of PyTorch's index of CPU wheels.

ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS dependencies
ARG ACCELERATOR=cuda
ARG CPU_INDEX=""
# More packages: boto3 for `ray up` on AWS, google-api-python-client and google-auth-httplib2 on Google Cloud, a
# spaCy pipeline's wheel for `prepare --vectors`.
ARG EXTRA=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
# Of the package only its version: this layer, most of the image, is made again when dependencies change, not code.
COPY objgan/__init__.py objgan/py.typed objgan/
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN python -m venv /opt/venv \
    && pip install --constraint constraints.txt setuptools \
    && case "$ACCELERATOR" in \
         cuda) ;; \
         cpu) [ -n "$CPU_INDEX" ] || { echo "ACCELERATOR=cpu needs CPU_INDEX, the index of torch's CPU wheels" >&2; exit 2; }; \
              pip install --constraint constraints.txt --index-url "$CPU_INDEX" torch torchvision ;; \
         *) echo "ACCELERATOR=$ACCELERATOR: cuda or cpu" >&2; exit 2 ;; \
       esac \
    && pip install --constraint constraints.txt --no-build-isolation '.[workflow]' \
    && if [ -n "$EXTRA" ]; then read -ra extra <<< "$EXTRA"; pip install --constraint constraints.txt "${extra[@]}"; fi \
    && pip uninstall --yes objgan

FROM python:${PYTHON}
# COMPILER=g++: torch.compile needs a compiler on the machine that trains, and 200 MB for it.
ARG COMPILER=""
# `ray up` copies files into the container with rsync. KubeRay and `ray up` start Ray from a login shell, and Debian's
# resets PATH.
# hadolint ignore=SC2016
RUN apt-get update \
    && apt-get install --yes --no-install-recommends rsync=3.* ${COMPILER:+"$COMPILER"} \
    && rm -rf /var/lib/apt/lists/* \
    && echo 'export PATH=/opt/venv/bin:$PATH' > /etc/profile.d/objgan.sh \
    && useradd --uid 1000 --user-group --create-home ray \
    && install -d -o 1000 -g 1000 /data
COPY --from=dependencies /opt/venv /opt/venv
COPY objgan /opt/objgan/objgan
COPY pipelines /opt/objgan/pipelines
COPY tune /opt/objgan/tune
COPY cluster /opt/objgan/cluster
COPY LICENSE /opt/objgan/
# Token authentication is on unless someone turns it off; nothing calls home.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/objgan \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    MLFLOW_DISABLE_TELEMETRY=true \
    GIT_PYTHON_REFRESH=quiet \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# By number: Kubernetes cannot check whether a named user is root.
USER 1000:1000
WORKDIR /data
CMD ["python", "-m", "pipelines", "--help"]
