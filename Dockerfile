# GPU image on NVIDIA's public PyTorch container, which brings torch and Transformer Engine.
#   docker build -t nemo-cosmos .
#   docker run --gpus all --ipc=host --rm -it -v $PWD:/workspace/run nemo-cosmos nemo-cosmos doctor
FROM nvcr.io/nvidia/pytorch:25.06-py3

WORKDIR /opt/nemo_cosmos
COPY setup.py pyproject.toml README.md LICENSE ./
COPY conf conf
COPY nemo_cosmos nemo_cosmos
# The container pins its packages through PIP_CONSTRAINT; torch stays, the rest follows this package's pins.
RUN python -c "import torch; print(f'torch=={torch.__version__}')" > /tmp/keep.txt \
    && PIP_CONSTRAINT=/tmp/keep.txt pip install --no-cache-dir .
WORKDIR /workspace/run
