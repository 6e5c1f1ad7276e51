"""MLflow: a folder of files by default, or a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

MOST_PARAMS = 100  # that are logged at once


class MLflow:
    """A run of theirs for a run of ours."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def step(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run_id, name, value, step=step)

    def end(self, result: Mapping[str, Any]) -> None:
        self._client.set_tag(self._run_id, "verified", result.get("verified"))
        self._client.set_terminated(self._run_id, "FINISHED" if result.get("status") == "ok" else "FAILED")


def mlflow(folder: str, config: Mapping[str, Any], experiment: str = "pipezoo", uri: str | None = None) -> MLflow:
    """A run in ``experiment``, at ``uri``; None: files in ``mlruns`` of the run's folder."""
    if uri is None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it asks for a database first, since 3.6
    client = import_module("mlflow").MlflowClient(uri or Path(f"{folder}/mlruns").absolute().as_uri())
    found = client.get_experiment_by_name(experiment)
    run = client.create_run(found.experiment_id if found else client.create_experiment(experiment))
    for name, value in list(config.items())[:MOST_PARAMS]:
        client.log_param(run.info.run_id, name, value)
    return MLflow(client, run.info.run_id)


mlflow.needs = "mlflow"  # type: ignore[attr-defined]
