"""What carries out the core's operations: a module for each backend (`asyncio`, `trio`, `curio`, `threads`,
`simulator`), and the driver that they share.

Import the one you need, as `from coulee.backends.asyncio import run`. Nothing is imported here, so that a program pays
for one event loop only, and a backend whose library is not installed is in nobody's way.
"""
