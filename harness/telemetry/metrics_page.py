"""One metrics page over HTTP, bounded in time and size: a server that hangs on it or floods it holds no run up."""

from collections.abc import Mapping
from typing import Final

import aiohttp

_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)
_MOST_BYTES: Final = 4 * 2**20  # vLLM's page with 16 engines has about 1 MB


async def read_page(http: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None) -> str:
    """The text of a page.

    Raises:
        aiohttp.ClientError, TimeoutError: no answer, or none within 5 s.
        ValueError: another status than 200 (a redirect too: it could lead a key astray), over 4 MiB, or no UTF-8.
    """
    page = bytearray()
    async with http.get(url, headers=headers, timeout=_TIMEOUT, allow_redirects=False) as response:
        if response.status != 200:
            raise ValueError(f"HTTP {response.status} for {response.url.path}")
        async for data in response.content.iter_any():
            page += data
            if len(page) > _MOST_BYTES:
                raise ValueError(f"{response.url.path} has more than {_MOST_BYTES // 2**20} MiB")
    return page.decode()
