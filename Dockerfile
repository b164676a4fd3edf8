# The commands on CPUs, with every format and storage. Nothing is downloaded when the image runs: the weights are in it.
FROM python:3.13-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=heic,media,parquet,raw,s3
ENV PATH=/opt/denoise/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/denoise
# a layer of its own, since it is the largest; the default index has PyTorch with CUDA, which takes 6 GB
RUN pip install --index-url "$TORCH_INDEX" "torch>=2.11,<2.15"
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY denoise denoise
RUN pip install ".[$EXTRAS]"

FROM python:3.13-slim
COPY --from=build /opt/denoise /opt/denoise
# /tmp is the home of any user that `docker run --user` names
ENV PATH=/opt/denoise/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
RUN useradd --uid 1000 --no-create-home denoise
USER denoise
WORKDIR /data
ENTRYPOINT ["denoise"]
CMD ["--help"]
