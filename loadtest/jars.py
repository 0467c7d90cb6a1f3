"""Kafka's jars: fetched once with Maven from its central repository (54 MB), kept in the user's cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from streams.errors import WeirError

VERSION = "4.1.1"

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>weir</groupId><artifactId>kafka-jars</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{version}</version></dependency>
  </dependencies>
</project>
"""


class KafkaUnavailable(WeirError):
    """Kafka could not be fetched or started; the message says what is missing."""


def cached_jars() -> Path | None:
    """The directory of Kafka's jars where a fetch has completed, else None."""
    home = _cache_dir()
    return home if any(home.glob(f"kafka_2.13-{VERSION}.jar")) else None


def fetch_jars() -> Path:
    """The directory of Kafka's jars; fetches them (54 MB) on first use. Safe to call from several processes.

    Raises KafkaUnavailable without `mvn`, or when the fetch fails.
    """
    home = _cache_dir()
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(home.parent / f"{home.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if cached_jars() is None:
            _fetch(home)
    return home


def _fetch(home: Path) -> None:
    if shutil.which("mvn") is None:
        raise KafkaUnavailable(
            "Kafka's jars are not here and `mvn` is missing: install Maven, then run `make kafka`"
        )
    with tempfile.TemporaryDirectory(dir=home.parent) as work:
        pom, libs = Path(work) / "pom.xml", Path(work) / "libs"
        pom.write_text(_POM.format(version=VERSION))
        done = subprocess.run(
            ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={libs}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise KafkaUnavailable(f"Maven could not fetch Kafka {VERSION}: {done.stdout.strip()[-400:]}")
        shutil.rmtree(home, ignore_errors=True)
        libs.rename(home)


def _cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "weir" / f"kafka-{VERSION}"
