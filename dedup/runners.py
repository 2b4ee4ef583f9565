"""Who does which kind of long work."""

from dedup import adopting, evaluating, jobs, learning
from dedup.models import Job

RUNNERS: dict[str, jobs.Runner] = {
    Job.Kind.ADOPT: adopting.adopt,
    Job.Kind.TRAIN: learning.train,
    Job.Kind.EVALUATE: evaluating.evaluate,
}
