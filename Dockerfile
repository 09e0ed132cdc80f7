# Callscope, from the locked requirements. It runs as no user of yours and writes its data only.
FROM python:3.13.15-slim-trixie AS python

FROM python AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY requirements/runtime.txt requirements/
RUN python -m venv --without-pip /opt/callscope \
 && pip --python /opt/callscope/bin/python install --no-deps --require-hashes --only-binary :all: -r requirements/runtime.txt
# The package, and beside it what `callscope rules export` and `callscope dashboards export` write out: as in a checkout.
COPY gateway /opt/callscope/app/gateway
COPY dashboards/generated /opt/callscope/app/dashboards/generated
COPY prometheus/rules /opt/callscope/app/prometheus/rules
COPY docs/runbook.md /opt/callscope/app/docs/
COPY LICENSE /opt/callscope/app/
# Also of a checkout that only its owner may read.
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/callscope/app/gateway /opt/callscope/lib \
 && chmod -R a+rX /opt/callscope

FROM python
LABEL org.opencontainers.image.title="Callscope" org.opencontainers.image.licenses="Apache-2.0"
RUN install -d -o 10001 -g 10001 -m 0750 /var/lib/callscope
COPY --from=build /opt/callscope /opt/callscope
ENV PATH=/opt/callscope/bin:$PATH PYTHONPATH=/opt/callscope/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Nothing but the data is written, so a read-only root works, with a tmpfs on /tmp.
USER 10001:10001
VOLUME /var/lib/callscope
EXPOSE 8080 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as r; [r.urlopen(f'http://127.0.0.1:{port}/readyz', timeout=4) for port in (8080, 9464)]"]
ENTRYPOINT ["python", "-m", "gateway"]
CMD ["serve", "--config", "/etc/callscope/callscope.yaml"]
