# The environment of requirements.lock, without the checkout: mount that at its own path, so that runs stay outside.
# docker build -t speceyes .
# docker run --rm -it -v "$PWD:$PWD" -w "$PWD" speceyes speceyes reproduce configs/demo.yaml
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /tmp/requirements.lock
RUN python -m venv /opt/speceyes \
    && /opt/speceyes/bin/python -m pip install --no-cache-dir --no-deps -r /tmp/requirements.lock
# `speceyes` of the checkout in the working folder
RUN printf '#!/bin/sh\nexec /opt/speceyes/bin/python -m speceyes_lib "$@"\n' > /usr/local/bin/speceyes \
    && chmod +x /usr/local/bin/speceyes
ENV PATH=/opt/speceyes/bin:$PATH OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYTHONHASHSEED=0
