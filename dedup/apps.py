from collections.abc import Collection

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DedupConfig(AppConfig):
    name = "dedup"
    verbose_name = _("Duplicates")

    def ready(self) -> None:
        from dedup import checks, erasing, exporting  # noqa: F401, PLC0415 - needs ready apps
        from support import merging, permissions, sweep  # noqa: PLC0415 - their models need ready apps
        from support.erasing import ERASE_RULES  # noqa: PLC0415
        from support.exporting import EXPORT_RULES  # noqa: PLC0415

        ERASE_RULES.update(erasing.RULES)
        EXPORT_RULES.update(exporting.RULES)
        sweep.SIGNS_OF_LIFE.append(_note_alive)

        merging.MERGE_RULES.update(
            {
                "dedup.Embedding.question": "stays",
                "dedup.Score.older": "stays",
                "dedup.Score.newer": "stays",
                "dedup.Flag.older": "stays",
                "dedup.Flag.newer": "stays",
                "dedup.Review.canonical": "stays",
                "dedup.Deflection.solved_question": "stays",
                "dedup.Deflection.asked_question": "stays",
            }
        )
        permissions.ROLES[permissions.AGENT].update({"dedup.review_flag", "dedup.view_flag"})
        permissions.ROLES[permissions.ADMIN].update(
            {
                "dedup.review_flag",
                "dedup.view_flag",
                "dedup.view_review",
                "dedup.view_release",
                "dedup.change_release",
                "dedup.activate_release",
                "dedup.start_job",
                "dedup.view_job",
                "dedup.view_score",
            }
        )


def _note_alive(name: str, queues: Collection[str]) -> None:
    from django.utils import timezone  # noqa: PLC0415 - needs ready apps

    from dedup import watching  # noqa: PLC0415

    watching.note_alive(name, queues, now=timezone.now())
