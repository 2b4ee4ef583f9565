"""Who does which kind of long work."""

from dedup import jobs, learning
from dedup.models import Job

RUNNERS: dict[str, jobs.Runner] = {
    Job.Kind.TRAIN: learning.train,
}
