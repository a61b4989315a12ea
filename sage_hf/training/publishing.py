"""What a Trainer tells others of its selection: the model's card, and the kept rows on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .model_card import add_selection, describe_training

# A mixin's place in front of a Trainer, whose attributes it uses.
InFrontOfTrainer: Any = object


class PublishesSelection(InFrontOfTrainer):
    """The part of `SageMixin` that writes and pushes."""

    _dataset_repo: str | None = None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Trainer's model card, and how the rows were chosen, with a picture; arguments as Trainer's."""
        super().create_model_card(*args, **kwargs)
        if self.selection is not None and self.is_world_process_zero():
            training = describe_training(self, kwargs, self._dataset_repo)
            add_selection(Path(self.args.output_dir), self.selection, self.train_dataset, training)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Pushes the kept rows to `sage_hub_dataset_id`, then the model with a link to them; arguments as Trainer's.

        Raises:
            HubError: The rows could not be pushed; then the model is not, either.
        """
        repo = self.args.sage_hub_dataset_id if self.selection is not None else None
        if repo is not None and self.is_world_process_zero():
            private, token = kwargs.get("private"), kwargs.get("token")
            done = self.selection.push_to_hub(
                repo,
                other_splits={},  # as the training saw the rows, other splits may have other columns
                private=self.args.hub_private_repo if private is None else private,
                token=token or self.args.hub_token,
            )
            self._dataset_repo = done.repo_url.repo_id if done is not None else repo
        return super().push_to_hub(*args, **kwargs)
