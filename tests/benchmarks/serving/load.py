"""Clients of a server, for `make bench-serve`: closed loops, and an open loop whose latencies omit nothing."""

import asyncio
import time

import numpy as np


async def post(address, path, body, streams=None):
    """One request over a connection that is kept; the connection, to be used again.

    Raises:
        RuntimeError: another status than 200.
    """
    reader, writer = streams or await asyncio.open_connection(*address)
    head = f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Length: {len(body)}\r\n"
    kind = "application/json" if body.startswith(b"{") else "application/octet-stream"
    writer.write(f"{head}Content-Type: {kind}\r\n\r\n".encode() + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    content = await reader.readexactly(length)
    if b" 200 " not in lines[0]:
        writer.close()
        raise RuntimeError(f"{lines[0]!r} {content[:200]!r}")
    return reader, writer


async def _closed(address, path, bodies, clients, seconds):
    end, latencies = time.perf_counter() + seconds, []

    async def client(number):
        streams = None
        while (begun := time.perf_counter()) < end or streams is None:  # once at least
            streams = await post(address, path, bodies[number % len(bodies)], streams)
            latencies.append(time.perf_counter() - begun)
            number += 1
        if streams:
            streams[1].close()

    begun = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return len(latencies) / (time.perf_counter() - begun), latencies


def closed(address, path, bodies, clients, seconds):
    """Requests a second, and the median latency, of clients that each ask again once they are answered."""
    throughput, latencies = asyncio.run(_closed(address, path, bodies, clients, seconds))
    return throughput, float(np.median(latencies))


async def _open(address, path, bodies, rate, seconds, seed):
    random, free, latencies = np.random.default_rng(seed), [], []
    begun = time.perf_counter()

    async def one(due, body):
        streams = await post(address, path, body, free.pop() if free else None)
        latencies.append(time.perf_counter() - due)  # from when it was due, not from when it was sent
        free.append(streams)

    tasks, due = [], begun
    while (due := due + random.exponential(1 / rate)) < begun + seconds:
        await asyncio.sleep(max(0, due - time.perf_counter()))
        tasks.append(asyncio.ensure_future(one(due, bodies[len(tasks) % len(bodies)])))
    failed = sum(isinstance(each, Exception) for each in await asyncio.gather(*tasks, return_exceptions=True))
    for _, writer in free:
        writer.close()
    return latencies, failed


def opened(address, path, bodies, rate, seconds, seed=0):
    """Median and 99th percentile of latencies, and failures, of requests that come at random, whatever was answered."""
    latencies, failed = asyncio.run(_open(address, path, bodies, rate, seconds, seed))
    return float(np.median(latencies)), float(np.percentile(latencies, 99)), failed
