"""Who does which kind of long work."""

from dedup import adopting, jobs, learning
from dedup.models import Job

RUNNERS: dict[str, jobs.Runner] = {
    Job.Kind.ADOPT: adopting.adopt,
    Job.Kind.TRAIN: learning.train,
}
