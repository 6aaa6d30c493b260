"""`estimate`: hours and cost of a training stage, from a measured speed."""

from objgan.errors import InputError
from pipelines.command_line import OptionsClass, option


class EstimateOptions(OptionsClass):
    """Estimate hours and cost of a training stage. `pipelines runs` and the dashboard show the speed.

    examples:
      python -m cluster estimate --samples-per-second 40 --steps 620873 --batch 16 --machines 4 --price 1.2
    """

    samples_per_second: float = option(
        0.0, "inputs", "measured speed of all workers together (required)", float, required=True, metavar="S"
    )
    steps: int = option(0, "inputs", "steps of the stage (required)", int, required=True, metavar="N")
    batch: int = option(
        0, "inputs", "samples of a step, setting training.batch_size (required)", int, required=True, metavar="B"
    )
    overhead: float = option(
        0.1,
        "inputs",
        "share of time for checkpoints, validation and, on spot machines, restarts and repeated steps",
        float,
        metavar="SHARE",
    )
    machines: int = option(1, "cluster", "number of worker machines", int, metavar="M")
    price: float = option(0.0, "cluster", "price of a worker machine per hour, in any currency", float, metavar="P")
    head_price: float = option(0.0, "cluster", "price of the head per hour", float, metavar="P")

    @property
    def hours(self) -> float:
        """Hours of the stage, overhead included."""
        return self.steps * self.batch / self.samples_per_second / 3600 * (1 + self.overhead)

    @property
    def cost(self) -> float:
        """Cost of all machines for these hours."""
        return self.hours * (self.machines * self.price + self.head_price)


def estimate(options: EstimateOptions) -> int:
    """Print hours and cost.

    Raises:
        InputError: a number out of bounds.
    """
    if min(options.steps, options.batch, options.machines) < 1 or not options.samples_per_second > 0:
        raise InputError("estimate: steps, batch and machines must be at least 1, samples per second over 0")
    if not all(amount >= 0 for amount in (options.price, options.head_price, options.overhead)):
        raise InputError("estimate: prices and overhead must not be negative")
    speed = f"{options.samples_per_second:g} samples per second"
    print(f"{options.hours:.1f} hours: {options.steps} steps x {options.batch} samples, at {speed}")
    if options.price or options.head_price:
        print(
            f"{options.cost:.2f}: {options.machines} x {options.price:g} and a head at {options.head_price:g}, per hour"
        )
    return 0
