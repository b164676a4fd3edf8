# The commands on CPUs, with every format and storage. Nothing is downloaded when the image runs: the weights are in it.
FROM python:3.13-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/denoise/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/denoise
# a layer of its own, since it is the largest; the default index has PyTorch with CUDA, which takes 6 GB
RUN pip install --index-url "$TORCH_INDEX" "torch>=2.11,<2.15"
ARG EXTRAS=heic,media,parquet,raw,s3
RUN --mount=type=bind,target=/src pip install "/src[$EXTRAS]"
# /tmp is the home of any user that `docker run --user` names
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 1000 --no-create-home denoise
USER denoise
WORKDIR /data
ENTRYPOINT ["denoise"]
CMD ["--help"]
