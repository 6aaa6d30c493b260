"""`estimate`: hours and money of a run, from a measured speed."""

import argparse
from dataclasses import dataclass
from typing import Any

from cluster.errors import InputError


@dataclass(frozen=True)
class Work:
    """Steps of `batch` samples at `speed` samples a second, on machines of `price` an hour."""

    steps: int
    batch: int
    speed: float
    machines: int = 1
    price: float = 0.0
    head_price: float = 0.0
    overhead: float = 0.1

    @property
    def hours(self) -> float:
        """Steps x batch / speed, and the overhead: checkpoints, validation, restarts, replayed steps."""
        return self.steps * self.batch / self.speed / 3600 * (1 + self.overhead)

    @property
    def cost(self) -> float:
        """Hours x (machines x price + the head's)."""
        return self.hours * (self.machines * self.price + self.head_price)


def add_parser(commands: Any) -> None:
    """`estimate` and its options."""
    text = "Estimate hours and cost of a training stage from a measured speed (see `pipelines runs` or the dashboard)."
    command = commands.add_parser("estimate", help=text, description=text)
    command.add_argument("--samples-per-second", type=float, required=True, metavar="S", help="of all workers together")
    command.add_argument("--steps", type=int, required=True, metavar="N", help="steps of the stage")
    command.add_argument(
        "--batch", type=int, required=True, metavar="B", help="samples of a step (training.batch_size)"
    )
    command.add_argument("--machines", type=int, default=1, metavar="M", help="worker machines (default: 1)")
    command.add_argument("--price", type=float, default=0.0, metavar="P", help="of a worker machine, an hour")
    command.add_argument("--head-price", type=float, default=0.0, metavar="P", help="of the head, an hour")
    command.add_argument(
        "--overhead",
        type=float,
        default=0.1,
        metavar="F",
        help="share on top for checkpoints, validation and, on spot machines, restarts (default: 0.1)",
    )
    command.set_defaults(action=estimate)


def estimate(options: argparse.Namespace) -> int:
    """Print it.

    Raises:
        InputError: a number that cannot be.
    """
    work = Work(
        options.steps,
        options.batch,
        options.samples_per_second,
        options.machines,
        options.price,
        options.head_price,
        options.overhead,
    )
    if min(work.steps, work.batch, work.machines) < 1 or work.speed <= 0:
        raise InputError("estimate: steps, batch and machines are at least 1, samples a second over 0")
    if min(work.price, work.head_price, work.overhead) < 0:
        raise InputError("estimate: prices and overhead are not under 0")
    print(f"{work.hours:.1f} hours: {work.steps} steps x {work.batch} samples / {work.speed:g} a second")
    if work.price or work.head_price:
        print(f"{work.cost:.2f}: {work.machines} x {work.price:g} and a head at {work.head_price:g}, an hour")
    return 0
