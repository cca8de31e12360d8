"""Blocks of the KV cache: a finite pool, shared by equal prefixes, the least recently used evicted first.

A block holds `block_size` tokens. A full block is known by the hash of its tokens chained with its
predecessor's hash, so equal prefixes (under the same salt) find each other's blocks. A block that nobody
uses stays findable until its place is needed. The pool knows no sequences; `scheduler` does.
"""

from collections import OrderedDict

TOKEN_BYTES = 4


def block_hashes(token_ids: bytes, block_size: int, salt: str = "") -> list[int]:
    """Chained hashes of the full blocks of `token_ids` (int32 each); `salt` keeps tenants apart.

    A hash is Python's own of (predecessor, bytes): 64 bits, of this process only.
    """
    width = block_size * TOKEN_BYTES
    link = hash(salt)
    chain = []
    for start in range(0, len(token_ids) - width + 1, width):
        link = hash((link, token_ids[start : start + width]))
        chain.append(link)
    return chain


class BlockPool:
    """`size` blocks; each is in use (by one or more sequences), or free, and free ones may still be found."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._users = [0] * size
        self._hash: list[int | None] = [None] * size
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(size))
        self._found: dict[int, int] = {}

    @property
    def free(self) -> int:
        """Blocks that can be allocated now, cached contents included."""
        return len(self._free)

    @property
    def usage(self) -> float:
        return 1 - len(self._free) / self.size

    def find(self, chain: list[int], limit: int) -> tuple[list[int], int]:
        """Blocks of the longest cached prefix of `chain` (at most `limit`), and how many of them are free."""
        blocks: list[int] = []
        unused = 0
        for link in chain[:limit]:
            block = self._found.get(link)
            if block is None:
                break
            blocks.append(block)
            unused += self._users[block] == 0
        return blocks, unused

    def share(self, blocks: list[int]) -> None:
        for block in blocks:
            if self._users[block] == 0:
                del self._free[block]
            self._users[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks, the least recently used first; what they cached is forgotten."""
        taken = []
        for _ in range(count):
            block, _none = self._free.popitem(last=False)
            link = self._hash[block]
            if link is not None:
                del self._found[link]
                self._hash[block] = None
            self._users[block] = 1
            taken.append(block)
        return taken

    def remember(self, block: int, link: int) -> None:
        """Make a full block findable by its hash; the first block of a given content stays the one found."""
        if self._hash[block] is None and link not in self._found:
            self._hash[block] = link
            self._found[link] = block

    def release(self, blocks: list[int]) -> None:
        """Count one user less; a prefix's tail becomes free, and so evictable, before its head."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block] == 0:
                self._free[block] = None

    def forget(self) -> bool:
        """Forget all cached contents; refused (False) while any block is in use, as in vLLM."""
        if len(self._free) != self.size:
            return False
        self._found.clear()
        self._hash = [None] * self.size
        return True
