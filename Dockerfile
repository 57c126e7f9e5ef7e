# GPU image on NVIDIA's public NeMo container, which brings PyTorch, Transformer Engine, Megatron-Core and NeMo.
#   docker build -t nemo-cosmos .
#   docker build -t nemo-cosmos --build-arg USER_ID=$(id -u) --build-arg GROUP_ID=$(id -g) .    (not as root)
# docs/launching.md shows how it is run. Another image with Python 3.10 to 3.12 and PyTorch 2.6 or newer does as well:
#   docker build -t nemo-cosmos --build-arg NEMO_IMAGE=nvcr.io/nvidia/pytorch:25.06-py3 .
ARG NEMO_IMAGE=nvcr.io/nvidia/nemo:25.09
FROM ${NEMO_IMAGE}

WORKDIR /opt/nemo_cosmos

# The requirements first: they are installed again only when these files change. What is compiled for the image's CUDA
# stays as it is; NeMo and Megatron-Core become the versions that pyproject.toml pins, where the image has others. The
# image's own constraints, of PIP_CONSTRAINT, would forbid some of them.
COPY pyproject.toml ./
COPY tools/container_pins.py tools/
RUN python tools/container_pins.py kept > /opt/nemo_cosmos/kept.txt \
    && python tools/container_pins.py requirements > /opt/nemo_cosmos/requirements.txt \
    && PIP_CONSTRAINT=/opt/nemo_cosmos/kept.txt pip install --no-cache-dir -r /opt/nemo_cosmos/requirements.txt \
    && python tools/container_pins.py check /opt/nemo_cosmos/kept.txt

COPY setup.py README.md LICENSE ./
COPY conf conf
COPY nemo_cosmos nemo_cosmos
RUN PIP_CONSTRAINT= pip install --no-cache-dir --no-deps --no-build-isolation . \
    && nemo-cosmos --version \
    && mkdir -p /cache/huggingface /workspace/run \
    && chmod 1777 /cache /cache/huggingface /workspace/run

ARG USER_ID=0
ARG GROUP_ID=0
RUN if [ "${USER_ID}" != 0 ]; then \
        groupadd --non-unique --gid "${GROUP_ID}" cosmos \
        && useradd --non-unique --uid "${USER_ID}" --gid "${GROUP_ID}" --create-home cosmos; \
    fi
USER ${USER_ID}:${GROUP_ID}

ENV HF_HOME=/cache/huggingface
WORKDIR /workspace/run
CMD ["nemo-cosmos", "--help"]
