"""By what a bee was launched, as its environment says."""

from __future__ import annotations

import pytest

from workerbee.launched import Launched, launched


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launched()),
        ({"WORKERBEE_LAUNCH": "gpu-1", "WORKERBEE_PLACE": "0"}, Launched("gpu-1", 0)),
        ({"WORKERBEE_LAUNCH": "gpu-1", "WORKERBEE_PLACE": "3", "SLURM_JOB_ID": "7"}, Launched("gpu-1", 3)),
        ({"SLURM_JOB_ID": "4711", "SLURM_PROCID": "2"}, Launched("slurm 4711", 2)),
        ({"SLURM_JOB_ID": "4711"}, Launched("slurm 4711")),
        (
            {
                "SLURM_ARRAY_JOB_ID": "4700",
                "SLURM_ARRAY_TASK_ID": "11",
                "SLURM_JOB_ID": "4711",
                "SLURM_PROCID": "0",
                "SLURM_JOB_END_TIME": "1795000000",
            },
            Launched("slurm 4700", 11, 1795000000.0),
        ),
        ({"PBS_JOBID": "12[3].head", "PBS_ARRAY_INDEX": "3"}, Launched("pbs 12[3].head", 3)),
        ({"LSB_JOBID": "5", "LSB_JOBINDEX": "0"}, Launched("lsf 5", 0)),
        ({"JOB_ID": "6", "SGE_TASK_ID": "undefined"}, Launched("sge 6")),
        ({"SLURM_JOB_ID": "1\x00\udcff", "SLURM_PROCID": "1"}, Launched()),
        ({"SLURM_JOB_ID": " ", "SLURM_PROCID": "1"}, Launched()),
        ({"SLURM_JOB_ID": "8", "SLURM_PROCID": "9" * 30, "SLURM_JOB_END_TIME": "soon"}, Launched("slurm 8")),
        ({"SLURM_JOB_ID": "8", "SLURM_PROCID": "2147483648"}, Launched("slurm 8")),
        ({"SLURM_JOB_ID": "8", "SLURM_PROCID": "-1"}, Launched("slurm 8")),
    ],
)
def test_a_launch_is_known_by_its_variables(environment: dict[str, str], expected: Launched) -> None:
    """Ours before a batch system's, an array's task before its job; what is no name or number is nothing."""
    assert launched(environment) == expected
