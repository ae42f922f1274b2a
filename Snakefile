# The papermill runs of one config, chained over benchmarks and splits.
#
# `speceyes reproduce CONFIG` is the way in: it checks everything first and starts snakemake with the
# flags that let an interrupted run continue. The jobs are computed in speceyes_lib/workflow/plan.py, where
# `speceyes jobs`, `speceyes status` and the tests see the very same list.
#
# Each job gets its parameters as one base64 text, so that snakemake notices any change in them; the executed
# notebook is its log, because outputs of failed jobs are deleted and logs are kept to be read.

from speceyes_lib.workflow.plan import load_config, plan

JOBS = plan(load_config(config.get("run_config", "configs/demo.yaml")))
# for jobs without a model of their own, on a cluster; a profile's set-resources has the last word
SMALL = {"mem_mb": 6000, "cpus_per_task": 1, "runtime": 240}


rule all:
    input:
        [job.outputs for job in JOBS],


for job in JOBS:

    rule:
        name:
            job.name
        input:
            *job.inputs,
        output:
            *job.outputs,
        log:
            job.executed,
        params:
            blob=job.blob,
            command=job.command,
        # what measures time has this machine to itself. A cluster's job has the size that its profile says
        threads: int(config.get("cores", 1)) if job.exclusive else 1
        resources:
            **({"gpu": job.gpus} if job.gpus else {}),
            **({} if job.runs_models else SMALL),
        shell:
            # read when the job runs, after the loop: nothing of `job` may stand here. $PPID is snakemake, without which
            # a job must not begin
            "SPECEYES_PARENT=$PPID exec \"${{SPECEYES_PYTHON:-python}}\" -m speceyes_lib job {params.command} {input[0]:q} {log:q} {params.blob}"
