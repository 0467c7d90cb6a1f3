# MLflow's server, at the version whose client is locked for Weir.
FROM python:3.13-slim
COPY requirements/mlflow.txt .
RUN pip install --no-cache-dir --require-hashes -r mlflow.txt \
    && useradd --uid 10001 --no-create-home mlflow \
    && install -d -o mlflow -g mlflow /data
USER mlflow
WORKDIR /data
VOLUME /data
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5000/health', timeout=2)"]
ENTRYPOINT ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--allowed-hosts", "*", \
    "--backend-store-uri", "sqlite:////data/mlflow.db", "--artifacts-destination", "/data/artifacts"]
