"""The description of the API is true: fuzzed requests get no 5xx and no answer that it does not describe.

PALATE_FUZZ sets the examples per operation (make fuzz-serve: 100).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = os.environ.get("PALATE_FUZZ", "2")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_fuzzed_requests_get_documented_answers(serving, tmp_path):
    with serving(folder=tmp_path) as server:
        phases = "examples,fuzzing" if int(EXAMPLES) < 10 else "examples,coverage,fuzzing"
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                "run",
                server.url + "/openapi.json",
                "--max-examples",
                EXAMPLES,
                "--checks",
                CHECKS,
                "--seed",
                "1",
                "--phases",
                phases,
                "--suppress-health-check",
                "all",
                "--exclude-path-regex",
                "/import/|/stream",
                "--no-color",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        assert server.get("/v1/stats")["errors"] == 0


def test_every_operation_says_what_it_does(server):
    description = server.get("/openapi.json")
    assert description["openapi"].startswith("3.1")
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            assert operation["description"].endswith("."), (method, path)
            assert operation["tags"]
            assert {"4XX", "5XX"} <= operation["responses"].keys()
            assert "HTTPValidationError" not in str(operation["responses"]), (method, path)
