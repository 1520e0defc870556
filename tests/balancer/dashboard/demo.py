"""Run the fleet of fakes with traffic, to look at the dashboard: demo [PORT]."""

from __future__ import annotations

import asyncio
import sys

from tests.balancer.dashboard.fleet import shown, traffic


async def main(port: int) -> None:
    """Run until it is stopped."""
    async with shown(port=port) as fleet:
        print(fleet.balancer.balancer.origin.url, flush=True)
        await traffic(fleet)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
