"""Who does which kind of long work."""

from dedup import evaluating, jobs, learning
from dedup.models import Job

RUNNERS: dict[str, jobs.Runner] = {
    Job.Kind.TRAIN: learning.train,
    Job.Kind.EVALUATE: evaluating.evaluate,
}
