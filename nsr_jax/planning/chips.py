"""Published figures of the chips that a run can be planned for."""

import dataclasses

GiB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, by its maker's figures.

    Attributes:
        memory: bytes.
        memory_bandwidth: bytes a second.
        peak_flops: additions and multiplications a second of bfloat16 matrix products.
        link_bandwidth: bytes a second that it sends to its neighbours, over all links at once.
        source: where these figures are published.
        network_bandwidth: bytes a second that it sends to other hosts, if these are not among the neighbours.
    """

    memory: float
    memory_bandwidth: float
    peak_flops: float
    link_bandwidth: float
    source: str
    network_bandwidth: float | None = None


# Links: Google publishes the sum of both directions, of which a chip sends at most half.
CHIPS = {
    'v4': Chip(
        32 * GiB, 1200e9, 275e12, 300e9, 'cloud.google.com/tpu/docs/v4; links: Jouppi et al., ISCA 2023 (6 of 50 GB/s)'
    ),
    'v5e': Chip(16 * GiB, 819e9, 197e12, 200e9, 'cloud.google.com/tpu/docs/v5e'),
    'v5p': Chip(95 * GiB, 2765e9, 459e12, 600e9, 'cloud.google.com/tpu/docs/v5p'),
    'v6e': Chip(32 * GiB, 1638e9, 918e12, 400e9, 'cloud.google.com/tpu/docs/v6e'),
    'tpu7x': Chip(192 * GiB, 7380e9, 2307e12, 600e9, 'cloud.google.com/tpu/docs/tpu7x'),
    'h100': Chip(
        80e9, 3350e9, 989e12, 450e9, "NVIDIA's data sheets of the H100 SXM and the DGX H100", network_bandwidth=50e9
    ),
    'h200': Chip(
        141e9, 4800e9, 989e12, 450e9, "NVIDIA's data sheets of the H200 SXM and the DGX H200", network_bandwidth=50e9
    ),
}
